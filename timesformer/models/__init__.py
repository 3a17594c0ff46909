"""Models, and how to build them by name."""

from timesformer.models.build import build_model, create_model, list_models

__all__ = ["build_model", "create_model", "list_models"]
