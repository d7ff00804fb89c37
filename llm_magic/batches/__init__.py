"""Offline batches (the Batch API): rows that a server answers within a day, remembered so that none is made twice."""
