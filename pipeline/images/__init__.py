"""The way of an image from its URL to its pixels.

`read` fetches the bytes, at a `pace` that the store can bear. `decode` returns RGB pixels, within limits of size and memory.
"""
