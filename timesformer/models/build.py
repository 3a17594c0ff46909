"""A model by its name in the registry: from the configuration, or from arguments."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from timesformer.models import baselines, light, stream, vit  # noqa: F401  (imported so that they register)
from timesformer.models.contract import VideoModel
from timesformer.utils.errors import ConfigError
from timesformer.utils.registry import MODELS
from timesformer.weights.load import load_weights


def build_model(cfg: CfgNode) -> VideoModel:
    """The model named by MODEL.MODEL_NAME, initialised but not loaded: clips (B, C, T, H, W), float -> logits (B, K).

    MODEL.WEIGHTS is not read here: a run that resumes or tests needs no such file.

    Raises:
        ConfigError: unknown name, sizes that the model cannot take, or a number of classes that is not found yet.
    """
    if cfg.MODEL.NUM_CLASSES == "auto":
        raise ConfigError(
            "MODEL.NUM_CLASSES auto is found in the lists of a run, which are not read here. For example "
            "MODEL.NUM_CLASSES 10"
        )
    model: VideoModel = MODELS.get(cfg.MODEL.MODEL_NAME).from_config(cfg)
    return model


def create_model(name: str, *, weights: str = "", **arguments: Any) -> VideoModel:
    """A model by its name: clips (B, C, T, H, W), float -> logits (B, K).

    Args:
        name: one of `list_models()`.
        weights: to start from: a file, a Hugging Face folder, "hf:OWNER/NAME" or "timm:NAME"; a head for other
            classes is reinitialised.
        arguments: num_classes, num_frames, img_size (a side or (height, width), in pixels), and for the transformers
            of this project all arguments of `TimeSformer`.

    Raises:
        ConfigError: unknown name.
        CheckpointError: the weights do not fit.

    Example:
        >>> model = create_model("TimeSformer", num_classes=12, num_frames=8, img_size=224)
    """
    model: VideoModel = MODELS.get(name)(**arguments)
    if weights:
        load_weights(model, weights)
    return model


def list_models() -> list[str]:
    """The names that `create_model` and MODEL.MODEL_NAME take."""
    return list(MODELS.names())
