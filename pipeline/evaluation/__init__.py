"""The measurement of a model package on labelled images, with the detectors of a run; and its quantization, which is measured so."""
