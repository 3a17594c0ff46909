"""The table of models, apart from `build.py` so that a model file can register itself without an import circle."""

from __future__ import annotations

from timesformer.utils.registry import Registry

MODELS = Registry("model")
