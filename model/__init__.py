"""SSD300 and SSD512 with a VGG16 trunk in plain torch: network, loss, postprocessing, packages. Reads alone."""
