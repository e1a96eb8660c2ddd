"""From images in storage to a table of detections."""
