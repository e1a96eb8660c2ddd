"""Job specs: YAML files with the settings of one command, and of its submission to a cluster."""
