"""How big a model is and how much work a clip costs: counted by torch without running anything, and as published."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timesformer.models.contract import VideoModel
from timesformer.models.vit import VisionTransformer


@dataclass(frozen=True)
class ModelSummary:
    """Sizes of a model."""

    num_parameters: int
    num_trainable: int  # parameters that have gradients
    multiply_accumulates_per_clip: int  # of matrix products and convolutions in a forward pass

    def __str__(self) -> str:
        n, scale, unit = self.num_parameters, *((1e6, "M") if self.num_parameters >= 1e6 else (1e3, "k"))
        frozen = f" ({self.num_trainable / scale:.1f} {unit} trained)" if self.num_trainable < n else ""
        work = self.multiply_accumulates_per_clip / 1e9
        digits = 1 if work >= 10 else 2
        return (
            f"{n / scale:.1f} {unit} parameters{frozen}, "
            f"{work:.{digits}f} G multiply-accumulates a clip (torch's counter)"
        )


def summarize(model: VideoModel) -> ModelSummary:
    """Count the parameters of `model` and the work of one clip of its input shape."""
    return ModelSummary(
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        multiply_accumulates_per_clip=multiply_accumulates(model, model.input_shape),
    )


def without_values(model: nn.Module) -> nn.Module:
    """A copy of `model` on torch's meta device, whose passes give shapes and compute nothing."""
    empty: dict[int, torch.Tensor] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        empty[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, empty)


def multiply_accumulates(
    model: nn.Module, input_shape: Sequence[int], *, clips: int = 1, backward: bool = False
) -> int:
    """Those of matrix products and convolutions for a batch, by torch's counter; the model is left as it is.

    Args:
        input_shape: (C, T, H, W) of one clip.
        clips: of the batch.
        backward: count a forward pass in training mode and its backward pass, instead of a forward pass in eval mode.
    """
    shell = without_values(model).train(backward)
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
        output = shell(torch.empty(clips, *input_shape, device="meta"))
        if backward:
            output.sum().backward()
    return counter.get_total_flops() // 2


def published_multiply_accumulates(model: VisionTransformer) -> int | None:
    """Those of one clip in the published TimeSformer, where every token passes through every layer.

    None for the sparse schemes: no implementation of them was published.
    """
    channels, num_frames, *_ = model.input_shape
    num_patches, dim = model.grid[0] * model.grid[1], model.cls_token.shape[2]
    hidden_dim, patches = model.get_parameter("blocks.0.mlp.fc1.weight").shape[0], num_frames * num_patches

    def attention(sequences: int, length: int) -> int:
        """Queries, keys, values and projection, then the scores and the weighted sums."""
        return sequences * (4 * length * dim**2 + 2 * length**2 * dim)

    tokens = 1 + patches
    if model.attention_type == "divided_space_time":
        block = attention(num_patches, num_frames) + patches * dim**2 + attention(num_frames, 1 + num_patches)
    elif model.attention_type == "joint_space_time":
        block = attention(1, tokens)
    elif model.attention_type == "space_only":
        tokens = num_frames * (1 + num_patches)
        block = attention(num_frames, 1 + num_patches)
    else:
        return None
    block += 2 * tokens * dim * hidden_dim
    stem = patches * channels * model.patch_embed.patch_size**2 * dim
    return stem + len(model.blocks) * block + dim * model.head.out_features
