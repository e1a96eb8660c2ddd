"""The HTML pages that commands write: one file each, without scripts and without a network."""
