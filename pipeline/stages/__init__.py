"""The work on images: fetch and decode, then detect.

`runner` is the interface with two implementations: `local`, a `process` per core of this machine, and `ray_data`, a Ray cluster,
whose processes run `ray_workers`. A run returns exactly one row per planned image. `isolate` runs the images that were lost with a
process again, one by one; on Ray, `ray_alone` is how.
"""
