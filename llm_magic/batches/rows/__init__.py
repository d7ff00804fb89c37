"""Rows that are asked by batches: the engine of such a run, the bodies of lines, results as outcomes."""
