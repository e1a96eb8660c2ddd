"""The commands that a person runs, with their specs, texts and pages."""
