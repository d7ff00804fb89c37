"""Rows asked from the workers of a Dask cluster: limits shared out, outcomes seen and kept as those of one process."""
