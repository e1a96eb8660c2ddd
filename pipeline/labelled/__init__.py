"""The labelled images, in Pascal VOC's layout or COCO's: how they are read, checked, and counted.

`record` is one labelled image, `dataset` reads a split, `check` reports what would spoil a training.
"""
