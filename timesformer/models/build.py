"""From the configuration to a model."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import nn

from timesformer.models import baselines, light, vit  # noqa: F401  (imported so that they register)
from timesformer.models.registry import MODELS


def build_model(cfg: CfgNode) -> nn.Module:
    """The model named by MODEL.MODEL_NAME: clips (B, C, T, H, W), float -> logits (B, K).

    Raises:
        ConfigError: unknown name, or sizes that the model cannot take.
        CheckpointError: TIMESFORMER.PRETRAINED_MODEL does not fit.
    """
    return MODELS.get(cfg.MODEL.MODEL_NAME).from_config(cfg)
