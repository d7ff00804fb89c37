"""The asking of one row: by one JSON document over a prepared request, or by a run as a cell's."""
