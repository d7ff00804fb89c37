"""Typed values: from an output type to a server's constraint, from text to a valid value."""
