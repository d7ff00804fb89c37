"""The JSONL files of the Batch API: input files are written, files of results read line by line."""
