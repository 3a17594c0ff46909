"""Baselines: the video CNNs and transformers of torchvision, untrained, under their own names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.utils.errors import ConfigError
from timesformer.utils.registry import MODELS
from timesformer.utils.sizes import height_width


@dataclass(frozen=True)
class Baseline:
    """A model of `torchvision.models.video`, with torchvision's own dropout and stochastic depth.

    Attributes:
        name: of torchvision's function.
    """

    name: str

    def from_config(self, cfg: CfgNode) -> nn.Module:
        """The model that the configuration describes.

        Raises:
            ConfigError: clips that the model cannot take, or recomputation.
        """
        if cfg.MODEL.RECOMPUTE != "none":
            raise ConfigError(
                f"MODEL.RECOMPUTE {cfg.MODEL.RECOMPUTE} is for the transformers of this project, not for {self.name}. "
                "Type MODEL.RECOMPUTE none"
            )
        crops = (cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE)
        shapes = [(3, cfg.DATA.NUM_FRAMES, *height_width(crop)) for crop in crops]
        return self.build(shapes, num_classes=cfg.MODEL.NUM_CLASSES)

    def build(self, shapes: Sequence[tuple[int, int, int, int]], *, num_classes: int) -> nn.Module:
        """The model, after each of `shapes` (C, T, H, W) was tried on torch's meta device, which computes shapes only.

        Raises:
            ConfigError: the model cannot take clips of that shape.
        """
        from torchvision.models import video  # seconds: not at import of this file

        function = getattr(video, self.name)
        for shape in shapes:
            try:
                with torch.device("meta"), torch.no_grad():
                    function(weights=None, num_classes=num_classes).eval()(torch.empty(1, *shape))
            except (RuntimeError, ValueError, ZeroDivisionError, IndexError) as error:
                _, frames, height, width = shape
                raise ConfigError(
                    f"{self.name} cannot take clips of {frames} frames of {height}x{width} pixels "
                    f"({str(error).splitlines()[0]}). Use other sizes, "
                    "such as DATA.NUM_FRAMES 16 DATA.TRAIN_CROP_SIZE 224 DATA.TEST_CROP_SIZE 224."
                ) from error
        return function(weights=None, num_classes=num_classes)


for _name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"):
    MODELS.register(_name)(Baseline(_name))
