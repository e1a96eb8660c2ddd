"""The list of images that a run is given: a folder, a prefix, a glob, a manifest or an S3 Inventory.

`listing` writes it to one Parquet file, whatever its source.
"""
