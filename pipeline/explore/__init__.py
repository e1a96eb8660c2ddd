"""A flat copy of a table that is quick to search, and the questions that people ask while they look."""
