"""The Ray cluster: how it is entered, and whether it has room for what is asked."""
