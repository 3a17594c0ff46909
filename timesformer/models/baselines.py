"""Baselines: the video CNNs and transformers of torchvision, untrained, under their own names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.models.registry import MODELS
from timesformer.utils.errors import ConfigError

DROPS = ("dropout", "attention_dropout", "stochastic_depth_prob")


@dataclass(frozen=True)
class Baseline:
    """A model of `torchvision.models.video`.

    Attributes:
        name: of torchvision's function.
        constructor: of the class it returns.
        drops: which of `DROPS` the constructor takes; the others have no effect.
    """

    name: str
    constructor: str
    drops: tuple[str, ...] = ()

    def from_config(self, cfg: CfgNode) -> nn.Module:
        """The model that the configuration describes.

        Raises:
            ConfigError: clips that the model cannot take.
        """
        crops = (cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE)
        sizes = [[crop, crop] if isinstance(crop, int) else crop for crop in crops]
        shapes = [(3, cfg.DATA.NUM_FRAMES, height, width) for height, width in sizes]
        arguments: dict[str, Any] = {
            "num_classes": cfg.MODEL.NUM_CLASSES,
            "dropout": cfg.MODEL.DROP_RATE,
            "attention_dropout": cfg.MODEL.ATTN_DROP_RATE,
            "stochastic_depth_prob": cfg.MODEL.DROP_PATH_RATE,
        }
        return self.build(shapes, **{k: v for k, v in arguments.items() if k in (*self.drops, "num_classes")})

    def build(self, shapes: Sequence[tuple[int, int, int, int]], **arguments: Any) -> nn.Module:
        """The model for clips of each of `shapes` (C, T, H, W); the first is the one it is built for.

        Each shape is tried on torch's meta device, which computes shapes only.
        """
        for shape in shapes:
            try:
                with torch.device("meta"), torch.no_grad():
                    self._call(shapes[0], **arguments).eval()(torch.empty(1, *shape))
            except (RuntimeError, ValueError, ZeroDivisionError, IndexError) as error:
                _, frames, height, width = shape
                raise ConfigError(
                    f"{self.name} cannot take clips of {frames} frames of {height}x{width} pixels "
                    f"({str(error).splitlines()[0]}). Use more or larger frames, such as DATA.NUM_FRAMES 16 "
                    "DATA.TRAIN_CROP_SIZE 224, and the same DATA.TEST_CROP_SIZE."
                ) from error
        return self._call(shapes[0], **arguments)

    def _call(self, shape: tuple[int, int, int, int], **arguments: Any) -> nn.Module:
        """Torchvision's function, with `arguments` in place of those it writes itself (sizes, stochastic depth)."""
        from torchvision.models import video  # seconds: not at import of this file

        if self.constructor == "MViT":
            arguments |= {"temporal_size": shape[1], "spatial_size": shape[2:]}
        function, constructor = getattr(video, self.name), getattr(video, self.constructor)
        module = importlib.import_module(function.__module__)

        def construct(*args: Any, **given: Any) -> nn.Module:
            return constructor(*args, **given | arguments)

        with mock.patch.object(module, self.constructor, construct):
            return function(weights=None)


for _baseline in (
    *(Baseline(name, "VideoResNet") for name in ("r3d_18", "mc3_18", "r2plus1d_18")),
    Baseline("s3d", "S3D", drops=("dropout",)),
    *(Baseline(name, "MViT", drops=DROPS) for name in ("mvit_v1_b", "mvit_v2_s")),
    *(Baseline(name, "SwinTransformer3d", drops=DROPS) for name in ("swin3d_t", "swin3d_s", "swin3d_b")),
):
    MODELS.register(_baseline.name)(_baseline)
