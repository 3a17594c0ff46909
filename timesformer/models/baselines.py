"""Baselines: the video CNNs and transformers of torchvision, untrained, under their own names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.utils.errors import ConfigError
from timesformer.utils.registry import MODELS
from timesformer.utils.sizes import height_width


@dataclass(frozen=True)
class Baseline:
    """A model of `torchvision.models.video`, with torchvision's own dropout and stochastic depth."""

    name: str  # of torchvision's function

    def from_config(self, cfg: CfgNode) -> nn.Module:
        """The model, after its clips were tried on torch's meta device, which computes shapes only.

        Raises:
            ConfigError: clips that the model cannot take, or recomputation.
        """
        if cfg.MODEL.RECOMPUTE != "none":
            raise ConfigError(
                f"MODEL.RECOMPUTE {cfg.MODEL.RECOMPUTE} is for the transformers of this project, not for {self.name}. "
                "Type MODEL.RECOMPUTE none"
            )
        from torchvision.models import video  # seconds: not at import of this file

        build = partial(getattr(video, self.name), weights=None, num_classes=cfg.MODEL.NUM_CLASSES)
        for height, width in map(height_width, (cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE)):
            try:
                with torch.device("meta"), torch.no_grad():
                    build().eval()(torch.empty(1, 3, cfg.DATA.NUM_FRAMES, height, width))
            except (RuntimeError, ValueError, ZeroDivisionError, IndexError) as error:
                raise ConfigError(
                    f"{self.name} cannot take clips of {cfg.DATA.NUM_FRAMES} frames of {height}x{width} pixels "
                    f"({str(error).splitlines()[0]}). Use other sizes, "
                    "such as DATA.NUM_FRAMES 16 DATA.TRAIN_CROP_SIZE 224 DATA.TEST_CROP_SIZE 224."
                ) from error
        model: nn.Module = build()
        return model


for _name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"):
    MODELS.register(_name)(Baseline(_name))
