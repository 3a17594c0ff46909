"""From attention to a map: how much each patch of a clip counts for what a transformer reads, through all its steps.

Relevance flows backwards, from the token that is read to the patches. A step of attention with weights A and its
residual branch turn the relevance r of the tokens after it into that of the tokens before it:

    rollout                (r + rA) / 2, where A is the mean of the heads
        (Abnar and Zuidema, 2020, "Quantifying Attention Flow in Transformers")
    gradient-weighted      r + rA, where A is the mean over the heads of the positive part of A * dy/dA, y the logit
        (Chefer et al., 2021, "Generic Attention-model Explainability", equations 5 and 6)

Each step of a scheme (over time, within frames, along rows, ...) is such a layer of its own, so that no matrix among
all tokens of a clip is ever made.

Letters: T frames, H W patches of a frame, N = H*W, G groups, L tokens of a row, R rows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.models.attention import Weighing, recorded_attention, split_heads
from timesformer.models.blocks import Block, LocalGlobalBlock, SteppedBlock
from timesformer.models.frame_cls import FrameClsBlock
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.utils.errors import UserError


def rollout(model: TimeSformer, clip: Tensor) -> Tensor:
    """Attention rollout of a clip (1, C, T, H, W), relative to that of uniform attention: (T, rows, columns).

    Uniform attention does not give a uniform map everywhere: of a causal model, the last frame counts most. What is
    divided out is therefore the rollout of the same model with equal weights; where that is uniform, nothing changes.
    """
    with torch.no_grad(), recorded_attention(model) as records:
        model.forward_features(clip, all_tokens=True)
    uniform = {attn: [each._replace(q=torch.zeros_like(each.q)) for each in calls] for attn, calls in records.items()}
    found, even = (_Flow(weighings).through(model.model, clip.shape[2]) for weighings in (records, uniform))
    return found / even


def gradient_weighted(model: TimeSformer, clip: Tensor, label: int) -> Tensor:
    """How much the patches of a clip (1, C, T, H, W) speak for class `label` by gradient-weighted attention.

    Returns:
        (T, rows, columns).
    """
    with torch.enable_grad(), recorded_attention(model) as records:
        features, _ = model.forward_features(clip.detach().requires_grad_(), all_tokens=True)
        logit = model.head(features)[0, label]
        mixed = [each.mixed for calls in records.values() for each in calls]
        gradients = iter(torch.autograd.grad(logit, mixed, allow_unused=True))  # unused: what only patches read
    by_attention: dict[nn.Module, list[Tensor | None]] = {}
    for attn, calls in records.items():
        by_attention[attn] = [next(gradients) for _ in calls]
    with torch.no_grad():
        return _Flow(records, by_attention).through(model.model, clip.shape[2])


class _Patches(NamedTuple):
    """Relevance of the tokens of a `SteppedBlock`: of the cls token, (), and of patches, (1, H, W, T, 1)."""

    cls: Tensor
    tokens: Tensor


@dataclass
class _Flow:
    """The backward flow of relevance through a model; with `gradients` gradient-weighted, without by rollout."""

    weighings: dict[nn.Module, list[Weighing]]  # of one clip, in the order of the calls
    gradients: dict[nn.Module, list[Tensor | None]] | None = None  # of each `mixed`

    def through(self, vit: VisionTransformer, num_frames: int) -> Tensor:
        """Relevance (T, rows, columns) of the patches for the token that the head reads."""
        rows, columns = vit.grid
        device, patches = vit.cls_token.device, rows * columns
        if vit.by_frame:
            state: Any = torch.zeros(num_frames, 1 + patches, device=device)
            state[-1 if vit.attention_type == "frame_cls_causal" else slice(None), 0] = 1.0
        elif vit.attention_type == "joint_space_time":
            state = torch.zeros(1, 1 + patches * num_frames, device=device)
            state[0, 0] = 1.0
        else:
            tokens = torch.zeros(1, rows, columns, num_frames, 1, device=device)
            state = _Patches(torch.ones((), device=device), tokens)
        with torch.autocast(device.type, enabled=False):
            for block in reversed(vit.blocks):
                state = self.back(block, state)
        if isinstance(state, _Patches):
            return rearrange(state.tokens, "1 h w t 1 -> t h w")
        order = "t (h w) -> t h w" if vit.by_frame else "1 (h w t) -> t h w"
        return rearrange(state[:, 1:], order, h=rows, w=columns)

    @singledispatchmethod
    def back(self, block: nn.Module, state: Any) -> Any:
        """The relevance of the tokens before `block` from that of those after it."""
        raise UserError(
            f"rollout and gradient do not know how attention runs in {type(block).__name__}. "
            "Take the method occlusion, which works for any model"
        )

    @back.register
    def _(self, block: Block, state: Tensor) -> Tensor:  # rows (R, L)
        return self._join(state, self._moved(block.attn, state))

    @back.register
    def _(self, block: FrameClsBlock, state: Tensor) -> Tensor:  # frames (T, 1 + N)
        state = self._join(state, self._moved(block.attn, state))
        times = state.T  # (1 + N, T)
        return self._join(times, self._moved(block.temporal_attn, times)).T

    @back.register
    def _(self, block: SteppedBlock, state: _Patches) -> _Patches:
        cls, tokens = state
        grouped = _grouped(block.last, tokens)
        if isinstance(block, LocalGlobalBlock):  # patches first, then cls, which sees all groups at once
            from_patches = self._moved(block.attn, grouped, call=0)
            moved = from_patches + self._moved(block.attn, cls.view(1, 1), call=1).view_as(from_patches)
        else:  # a copy of cls in each group; their results are averaged, which their gradients already know
            share = cls if self.gradients else cls / len(grouped)
            moved = self._moved(block.attn, torch.cat([share.expand(len(grouped), 1), grouped], dim=1))
        cls = self._join(cls, moved[:, 0].sum())
        tokens = self._join(tokens, block.last.ungroup(moved[None, :, 1:, None], tokens.shape))
        for step, groups in reversed(block.steps.items()):
            moved = self._moved(getattr(block, f"{step}_attn"), _grouped(groups, tokens))
            tokens = self._join(tokens, groups.ungroup(moved[None, ..., None], tokens.shape))
        return _Patches(cls, tokens)

    def _join(self, residual: Tensor, moved: Tensor) -> Tensor:
        return residual + moved if self.gradients else (residual + moved) / 2

    def _moved(self, attn: nn.Module, rows: Tensor, call: int = 0) -> Tensor:
        """rA: relevance of queries (R, queries) to that of keys (R, L), one head at a time."""
        weighing = self.weighings[attn][call]
        heads = weighing.q.shape[1]
        gradient = self.gradients[attn][call] if self.gradients else None
        if self.gradients and gradient is None:
            return torch.zeros_like(weighing.k[:, 0, :, 0], dtype=rows.dtype)
        by_head = None if gradient is None else split_heads(gradient, heads, 1)[0]
        moved = torch.zeros((), device=rows.device)
        for head in range(heads):
            weights = attention_weights(weighing, head)
            if by_head is not None:  # the gradient of the weights is that of the result times the values
                slope = by_head[:, head].float() @ weighing.v[:, head].float().transpose(1, 2)
                weights = (weights * slope).clamp(min=0)
            moved = moved + torch.einsum("rq,rqk->rk", rows, weights) / heads
        return moved


def attention_weights(weighing: Weighing, head: int) -> Tensor:
    """The softmax of a head's queries and keys, (R, queries, keys) in float32."""
    q, k = weighing.q[:, head].float(), weighing.k[:, head].float()
    scores = q @ k.transpose(1, 2) * q.shape[2] ** -0.5
    if weighing.key_mask is not None:
        scores = scores.masked_fill(~weighing.key_mask[:, None], -torch.inf)
    if weighing.causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(dim=2)


def _grouped(groups: Any, tokens: Tensor) -> Tensor:
    """Relevance (1, H, W, T, 1) in groups, (G, L)."""
    grouped: Tensor = groups.group(tokens)
    return grouped[0, :, :, 0]
