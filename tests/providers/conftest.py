"""What the tests of the providers share: a recorder, and the marks of secrets that must not arrive at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `recorder` and `asked`, which tests import

from recorder import Recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder
