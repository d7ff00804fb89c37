"""Batches at their servers: submitted, looked at until they end, fetched; and what they spend."""
