"""The inference run: it lists, plans, detects, commits, and reconciles.

`run` calls the other modules. `plan` decides what is left to do, and `failures` decides when a run must stop.
`estimate` predicts what a run takes, and `cost` counts what it costs.
"""
