"""What many rows end as: a sequence of answers in which failures are values, columns of a frame, statistics."""
