"""The work on images: fetch and decode, then detect.

`runner` is the interface of who does it: `local`, processes of this machine, or `ray_data`, a Ray cluster. Both give exactly one row
for each planned image; `isolate` runs again, one by one, the images that were lost with a process.
"""
