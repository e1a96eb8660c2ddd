"""The facts about one run for people: counts, what changed since earlier runs, causes of failures, images to look at."""
