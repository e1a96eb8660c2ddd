"""The run: list, plan, detect, commit, and reconcile.

`run` holds them together. `plan` decides what is left to do, `failures` when a run must stop, `estimate` and `cost` what it takes.
"""
