"""The labelled images, in the layouts that tools write: how they are read, checked, and counted.

`record` is one labelled image, `dataset` reads a split, `check` reports what would spoil a training.
"""
