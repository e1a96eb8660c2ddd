"""SSD300 and SSD512 with a VGG16 trunk in plain torch: network, loss, postprocessing, packages.

This package imports no other package of the project, and can be read alone.
"""
