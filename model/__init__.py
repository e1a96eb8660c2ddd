"""SSD300 with a VGG16 trunk in plain torch: network, loss, postprocessing, packages. Reads alone."""
