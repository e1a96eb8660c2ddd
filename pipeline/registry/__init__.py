"""The model packages: how they are read, written, imported and published.

A published package is stored in a folder named by its digest. `aliases` are names that move from one package to the next.
"""
