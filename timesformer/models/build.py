"""From the configuration to a model."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from timesformer.models import baselines, light, vit  # noqa: F401  (imported so that they register)
from timesformer.models.contract import VideoModel
from timesformer.utils.registry import MODELS


def build_model(cfg: CfgNode) -> VideoModel:
    """The model named by MODEL.MODEL_NAME, initialised but not loaded: clips (B, C, T, H, W), float -> logits (B, K).

    TIMESFORMER.PRETRAINED_MODEL is not read here: a run that resumes or tests needs no such file.

    Raises:
        ConfigError: unknown name, or sizes that the model cannot take.
    """
    model: VideoModel = MODELS.get(cfg.MODEL.MODEL_NAME).from_config(cfg)
    return model
