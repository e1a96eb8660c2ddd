"""Copies of a table's detections in the formats of other programs: one module per format, over one selection of images."""
