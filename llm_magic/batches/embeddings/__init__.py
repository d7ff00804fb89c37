"""Texts that are embedded by batches."""
