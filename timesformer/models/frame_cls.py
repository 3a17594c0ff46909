"""Divided attention with a cls token per frame, and relative time: a block that can work frame by frame.

Letters: B clips, T frames, L tokens of a frame (the cls token first), D width, R rows (independent sequences).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.models.attention import Attention, split_heads
from timesformer.models.blocks import LAYER_NORM_EPS, BlockLayers

LONGEST_WAVE = 100.0  # ratio of the frequencies of rotary time: the slowest turns by one radian in so many frames


class FrameClsBlock(BlockLayers):
    """Attention over time at each token of a frame, cls tokens too, then within each frame, then MLP.

    It differs from divided attention (paper, Section 3) in three ways. Each frame has a cls token of its own, which
    attends over time to those of the other frames as a patch does to the patches at its place. Time is relative:
    queries and keys are rotated by their frame (Su et al., "RoFormer", 2021), so that length and start of a clip may
    change. Attention over time is a residual branch without a linear map after its projection.
    """

    causal = False  # a frame attends to itself and to earlier frames only, and the last frame's cls token is read

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool, drop: float, attn_drop: float, **how: Any) -> None:
        if dim // num_heads % 2:
            raise ValueError(f"width {dim} over {num_heads} heads is odd: time rotates pairs of channels")
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, drop=drop, attn_drop=attn_drop, **how)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.temporal_attn = Attention(dim, num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)

    def forward(self, x: Tensor, *, cls_only: bool = False) -> Tensor:
        """(B, T, L, D) -> the same shape; with `cls_only` the cls tokens that are read, (B, T or 1, 1, D)."""
        last_only = cls_only and self.causal
        mixed = self._attend(self.temporal_attn, self._by_token, x, mix=partial(self._mix_times, last_only))
        x = x[:, -1:] if last_only else x
        x = x + self.drop_path(rearrange(mixed, "(b l) t d -> b t l d", b=x.shape[0]))
        mixed = self._attend(self.attn, lambda x: self.norm1(x).flatten(0, 1), x, first_only=cls_only)
        x = x[:, :, :1] if cls_only else x
        x = x + self.drop_path(mixed.view_as(x))
        return x + self.drop_path(self._mlp(x))

    def _by_token(self, x: Tensor) -> Tensor:
        """Normed, a row for each token of a frame: (B*L, T, D)."""
        return rearrange(self.temporal_norm1(x), "b t l d -> (b l) t d")

    def _mix_times(self, last_only: bool, qkv: Tensor) -> Tensor:
        """qkv (R, T, 3D) -> the values as each time weighs them, (R, T, D); with `last_only` of the last, (R, 1, D)."""
        attn = self.temporal_attn
        qkv = rotate_by_time(qkv, attn.num_heads)
        if not last_only:
            return attn.mix(qkv, causal=self.causal)
        q, k, v = split_heads(qkv, attn.num_heads)
        return attn.attend(q[:, :, -1:], k, v)


class CausalFrameClsBlock(FrameClsBlock):
    """The same, and no frame sees a later one."""

    causal = True


def rotate_by_time(qkv: Tensor, num_heads: int) -> Tensor:
    """Queries, keys and values (R, T, 3D), in which queries and keys are rotated by their time.

    The two halves of a head's channels are the two coordinates; the frequencies are geometric, from 1 radian a frame
    to 1/100.
    """
    length, width = qkv.shape[1], qkv.shape[2] // 3
    half = width // (2 * num_heads)
    frequencies = LONGEST_WAVE ** (-torch.arange(half, device=qkv.device) / half)
    angles = torch.arange(length, device=qkv.device)[:, None] * frequencies  # (T, half)
    cos = torch.stack([angles.cos(), angles.cos()], dim=1)[:, None].to(qkv.dtype)  # (T, 1, 2, half)
    sin = torch.stack([-angles.sin(), angles.sin()], dim=1)[:, None].to(qkv.dtype)
    qk = qkv[..., : 2 * width].unflatten(2, (2 * num_heads, 2, half))
    turned = torch.addcmul(qk * cos, qk.flip(3), sin)
    return torch.cat([turned.flatten(2), qkv[..., 2 * width :]], dim=2)
