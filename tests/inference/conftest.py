"""The tiny run and its generated gestures, as the tests of the engine have them."""

from tests.engine.conftest import *  # noqa: F403
