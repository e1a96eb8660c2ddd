"""The submission of jobs to a Ray cluster: the job, its environment, and the job server."""
