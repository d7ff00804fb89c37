"""What many rows leave on disk while they are asked, so that a later run asks for what is missing alone."""
