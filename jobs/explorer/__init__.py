"""The explorer: a server for one table, and the page that it serves, in plain JavaScript."""
