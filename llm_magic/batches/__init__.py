"""Offline batches: rows that a server answers within a day, remembered on disk so that none is lost or made twice."""
