"""Bytes by URL: local paths, S3, and all that fsspec knows.

`store` is what the other packages use. `s3` finds the access to S3 once, for each library that speaks to it.
"""
