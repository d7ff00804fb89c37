"""Lets the tests of output types import the corpus of schemas and what samples from constraints."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "schemas"))
