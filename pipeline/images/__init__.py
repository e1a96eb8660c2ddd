"""One image, from its URL to its pixels.

`read` fetches, at a `pace` that the store can bear, and `decode` gives RGB pixels, within bounds of size and memory.
"""
