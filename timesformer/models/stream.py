"""StreamTimeSformer: divided attention with a cls token per frame, small and good at motion."""

from __future__ import annotations

from typing import Any, ClassVar

from timesformer.models.vit import TimeSformer
from timesformer.utils.registry import MODELS


@MODELS.register("StreamTimeSformer")
class StreamTimeSformer(TimeSformer):
    """Each frame has a cls token that attends over time; what is read is the last frame's (see `FrameClsBlock`).

    Made for motion: a gesture is where the hand is at which time, and a cls token per frame can say so. With
    "frame_cls_causal", the default, no frame sees a later one; "frame_cls" sees the whole clip and reads the mean.
    Time is relative: a trained model takes clips of another number of frames.
    """

    attention_types: ClassVar = ("frame_cls_causal", "frame_cls")

    def __init__(
        self,
        img_size: int | tuple[int, int] = (64, 80),
        patch_size: int = 8,
        num_classes: int = 12,
        num_frames: int = 8,
        attention_type: str = attention_types[0],
        pretrained_model: str = "",
        *,
        embed_dim: int = 96,
        depth: int = 3,
        num_heads: int = 3,
        mlp_ratio: float = 2.0,
        init: str = "scratch",
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
            mlp_ratio=mlp_ratio,
            init=init,
            **vit_arguments,
        )
