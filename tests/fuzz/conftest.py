"""Options of the random tests: `pytest -m slow tests/fuzz --kills 100`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, metavar="N", help="how often test_kills.py kills a run")
