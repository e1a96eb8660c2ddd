"""The Ray cluster: how it is entered, and whether it has room for the detectors that are asked for."""
