"""The results of commands, as text for people and programs."""
