"""The choice of the images that are worth labelling next, from a table alone."""
