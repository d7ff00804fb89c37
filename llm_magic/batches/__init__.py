"""Offline batches (the Batch API): rows are sent as a file, answered within a day at the provider's lower price."""
