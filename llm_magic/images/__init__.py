"""Anything that is an image becomes one part of a message: encoded once, sniffed, and small enough."""

from llm_magic.images.reading import is_picture, own_picture, part

__all__ = ["is_picture", "own_picture", "part"]
