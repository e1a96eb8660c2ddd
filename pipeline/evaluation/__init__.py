"""A model package measured on labelled images, with the detectors of a run."""
