"""Rows in a file of the user (`--batch-file`), which another program asks for, and what that gives."""
