"""The pipeline from images in storage to a table of detections."""
