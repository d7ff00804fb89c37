"""Offline batches (the Batch API): rows are sent as a file, answered within a day at the provider's lower price."""

"""Offline batches: rows that a server answers within a day, remembered on disk so that none is lost or made twice."""
