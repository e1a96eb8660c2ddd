"""The commands, by subject. Each reads its settings, calls `pipeline`, and prints; modules that take long are imported when a command runs."""
