"""Several models over many inputs: a run of rows for each, seen as one, and a row an input of what they said."""
