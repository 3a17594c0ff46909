"""LightTimeSformer: divided space-time attention at ViT-S width over many frames, for short gesture clips."""

from __future__ import annotations

from typing import Any

from timesformer.models.vit import TimeSformer
from timesformer.utils.registry import MODELS


@MODELS.register("LightTimeSformer")
class LightTimeSformer(TimeSformer):
    """A quarter of TimeSformer's parameters and, over four times the frames, about the same work per clip.

    Meant for clips that span the whole video (`DATA.SAMPLING_RATE auto`): a gesture is a trajectory, and
    more, cheaper frames show it better than few expensive ones.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 12,
        num_frames: int = 32,
        attention_type: str = "divided_space_time",
        pretrained_model: str = "",
        *,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        **vit_arguments: Any,
    ) -> None:
        super().__init__(
            img_size,
            patch_size,
            num_classes,
            num_frames,
            attention_type,
            pretrained_model,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            **vit_arguments,
        )
