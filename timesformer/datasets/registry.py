"""The table of datasets, apart from the datasets themselves so that each can register without a circle."""

from __future__ import annotations

from timesformer.utils.registry import Registry

# An entry is a class with the classmethod `from_config(cfg, split)` whose objects have `load() -> VideoList`.
DATASETS = Registry("dataset")
