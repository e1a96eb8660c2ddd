"""Job specs: YAML files with the settings of one command, and how a cluster is given the job."""
