"""Read and write bytes by URL: local paths, S3, and every store that fsspec knows.

`store` is the module that the other packages use. `s3` finds the access to S3 once, for each library that speaks to it.
"""
