"""Jobs on a Ray cluster: what is sent, in which environment, to which server."""
