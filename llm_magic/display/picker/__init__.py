"""The model picker: a panel over a `Desk`, which is all that it knows of providers, settings and requests."""

from __future__ import annotations

from llm_magic.display.picker.desk import Desk, Fact, InForce, Listing

__all__ = ["Desk", "Fact", "InForce", "Listing"]
