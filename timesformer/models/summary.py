"""How big a model is and how much work a clip costs, counted by torch without running anything."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from timesformer.models.contract import VideoModel


@dataclass(frozen=True)
class ModelSummary:
    """Sizes of a model.

    Attributes:
        num_parameters: all parameters.
        num_trainable: those that have gradients.
        multiply_accumulates_per_clip: of matrix products and convolutions in one forward pass of one clip.
    """

    num_parameters: int
    num_trainable: int
    multiply_accumulates_per_clip: int

    def __str__(self) -> str:
        n, scale, unit = self.num_parameters, *((1e6, "M") if self.num_parameters >= 1e6 else (1e3, "k"))
        frozen = f" ({self.num_trainable / scale:.1f} {unit} trained)" if self.num_trainable < n else ""
        work = self.multiply_accumulates_per_clip / 1e9
        return (
            f"{n / scale:.1f} {unit} parameters{frozen}, "
            f"{work:.{1 if work >= 10 else 2}f} G multiply-accumulates a clip (torch's counter)"
        )


def summarize(model: VideoModel) -> ModelSummary:
    """Count the parameters of `model` and the work of one clip of its input shape."""
    tensors = [*model.parameters(), *model.buffers()]
    on_meta = {id(tensor): tensor.detach().to("meta") for tensor in tensors}  # copied without their values
    shell = copy.deepcopy(model, on_meta).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(torch.empty(1, *model.input_shape, device="meta"))
    return ModelSummary(
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        multiply_accumulates_per_clip=counter.get_total_flops() // 2,
    )
