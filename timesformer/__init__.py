"""Video transformers for action and gesture clips: training from one YAML file, and use of what was trained.

What is exported here is imported when it is first used, so that `import timesformer` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from timesformer.config import get_cfg, load_config
    from timesformer.datasets.video_dataset import VideoDataset
    from timesformer.evaluation.evaluate import evaluate
    from timesformer.inference.explain import explain
    from timesformer.inference.predictor import Predictor, load
    from timesformer.models.build import create_model, list_models
    from timesformer.video.clip_spec import ClipSpec, Views

_HOMES = {
    "ClipSpec": "video.clip_spec",
    "Predictor": "inference.predictor",
    "VideoDataset": "datasets.video_dataset",
    "Views": "video.clip_spec",
    "create_model": "models.build",
    "evaluate": "evaluation.evaluate",
    "explain": "inference.explain",
    "get_cfg": "config",
    "list_models": "models.build",
    "load": "inference.predictor",
    "load_config": "config",
}

__all__ = [
    "ClipSpec",
    "Predictor",
    "VideoDataset",
    "Views",
    "create_model",
    "evaluate",
    "explain",
    "get_cfg",
    "list_models",
    "load",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name == "runtime":
        return importlib.import_module(f"{__name__}.runtime")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
