"""The training on a Ray cluster, from labelled images to a model package.

`run` is the whole training. `driver` starts the workers and resumes them. `worker` is the loop of each worker, and `feed` gives it
batches.
"""
