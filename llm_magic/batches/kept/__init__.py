"""What is remembered of batches on disk: their records, their files, and which are under way."""
