"""Transformer blocks: all tokens in one attention, or attention in steps over time and space.

Letters: B clips, T frames, H W patches of a frame, N = H*W, D width, R rows (independent sequences), L tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from timesformer.models.attention import Attention, split_heads
from timesformer.models.drop_path import DropPath
from timesformer.models.groups import EACH, Groups
from timesformer.models.linear import FoldedLinears, Linear

LAYER_NORM_EPS = 1e-6


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden_dim: int, *, drop: float) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.drop(self.fc2(self.drop(self.fc1(x, gelu=True))))


class BlockLayers(nn.Module):
    """The layers of a pre-norm transformer block, in the order of the released weights, and how they are kept.

    Args:
        mlp_ratio: hidden width of the MLP over D.
        drop: dropout after projections and MLP layers.
        attn_drop: dropout on attention weights.
        drop_path: stochastic depth.
        recompute: in training compute norms and GELUs again in the backward pass instead of keeping what they give
            to the linear layers, 7 of the 22 D a token that are kept otherwise.
    """

    steps: ClassVar[dict[str, Groups]] = {}  # attention before the last, each with a norm and a linear map of its own

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        drop: float,
        attn_drop: float,
        drop_path: float,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        attention = partial(Attention, dim, num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)
        self.recompute = recompute
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = attention()
        for step in self.steps:
            self.add_module(f"{step}_norm1", nn.LayerNorm(dim, eps=LAYER_NORM_EPS))
            self.add_module(f"{step}_attn", attention())
            self.add_module(f"{step}_fc", Linear(dim, dim))
            self.add_module(f"{step}_folded", FoldedLinears())
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def _attend(
        self,
        attn: Attention,
        rows: Callable[..., Tensor],
        *inputs: Tensor,
        first_only: bool = False,
        **how: Any,
    ) -> Tensor:
        """`attn(rows(*inputs))`; with `recompute` the rows are computed again in the backward pass."""
        if not self._recomputes:
            return attn(rows(*inputs), first_only=first_only, **how)  # type: ignore[no-any-return]
        projected = self._cheap(lambda *inputs: attn.project(rows(*inputs), first_only=first_only), *inputs)
        return attn(None, projected=projected, **how)  # type: ignore[no-any-return]

    def _mlp(self, x: Tensor) -> Tensor:
        if not self._recomputes:
            return self.mlp(self.norm2(x))  # type: ignore[no-any-return]
        mlp = self.mlp
        hidden = self._cheap(lambda x: mlp.fc1(self.norm2(x)), x)
        return self._cheap(lambda hidden: mlp.drop(mlp.fc2(mlp.drop(F.gelu(hidden)))), hidden)  # type: ignore[no-any-return]

    @property
    def _recomputes(self) -> bool:
        return self.recompute and self.training and torch.is_grad_enabled()

    def _cheap(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """`function(*inputs)`, which ends in a linear layer: that is not computed again, only its input is."""
        draws = self.mlp.drop.p > 0.0
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws)


class Block(BlockLayers):
    """Attention among all tokens of a row, then MLP; the first token is the cls token."""

    def forward(self, x: Tensor, *, cls_only: bool = False) -> Tensor:
        """(R, L, D) -> (R, L, D), or the first token of it, (R, 1, D), with `cls_only`."""
        mixed = self._attend(self.attn, self.norm1, x, first_only=cls_only)
        x = (x[:, :1] if cls_only else x) + self.drop_path(mixed)
        return x + self.drop_path(self._mlp(x))


class SteppedBlock(BlockLayers):
    """Attention in steps: first among patches only, in groups; at last with the cls token in every group; then MLP.

    The cls token is an argument of its own, so that it need not be cut out of, or joined to, the patch tokens.
    In the last step every group has the same cls token, and its results are averaged over the groups.
    """

    last: ClassVar[Groups]

    def forward(self, cls: Tensor, tokens: Tensor, *, cls_only: bool = False) -> tuple[Tensor, Tensor]:
        """cls (B, 1, D) and tokens (B, H, W, T, D) -> the same shapes; with `cls_only` no token, (B, 0, W, T, D)."""
        for step, groups in self.steps.items():
            tokens = tokens + self._step(step, groups, tokens)
        cls_out, tokens_out = self._last_step(cls, tokens, cls_only=cls_only)
        cls = cls + cls_out
        if tokens_out is None:
            return cls + self.drop_path(self._mlp(cls)), tokens[:, :0]
        tokens = tokens + tokens_out
        cls_out, tokens_out = self._mlp(cls), self._mlp(tokens)
        factor = self.drop_path.row_factor(cls_out)  # (B, 1, 1): one decision per clip, for cls and patches alike
        if factor is not None:
            cls_out, tokens_out = cls_out * factor, tokens_out * factor[..., None, None]
        return cls + cls_out, tokens + tokens_out

    def _step(self, step: str, groups: Groups, tokens: Tensor) -> Tensor:
        """Attention in groups of patches, its projection and linear map: (B, H, W, T, D) -> the same shape."""
        norm, attn, linear, folded = (getattr(self, f"{step}_{layer}") for layer in ("norm1", "attn", "fc", "folded"))
        real = groups.real(tokens)
        attend = partial(
            self._attend,
            attn,
            lambda tokens: groups.group(norm(tokens)).flatten(0, 1),  # (B*G, L, D)
            tokens,
            key_mask=None if real is None else real.repeat(tokens.shape[0], 1),
        )
        if attn.output_is_observed or linear._forward_hooks or linear._forward_pre_hooks:
            mixed = linear(self.drop_path(attend()))
        else:  # the projection and the linear map as one product
            mixed = attend(project_out=partial(folded, second=linear, drop_path=self.drop_path))
        return groups.ungroup(rearrange(mixed, "(b g) l d -> b g l d", b=tokens.shape[0]), tokens.shape)

    def _last_step(self, cls: Tensor, tokens: Tensor, *, cls_only: bool) -> tuple[Tensor, Tensor | None]:
        """What attention adds to cls and, without `cls_only`, to tokens."""
        mixed = self.drop_path(self._attend(self.attn, self._rows, cls, tokens, first_only=cls_only))
        mixed = rearrange(mixed, "(b g) l d -> b g l d", b=cls.shape[0])  # each group is dropped on its own
        tokens_out = None if cls_only else self.last.ungroup(mixed[:, :, 1:], tokens.shape)
        return mixed[:, :, :1].mean(1), tokens_out

    def _rows(self, cls: Tensor, tokens: Tensor) -> Tensor:
        """Normed, the cls token before each group: (B*G, 1 + L, D)."""
        groups = self.last.group(self.norm1(tokens))  # (B, G, L, D)
        copies = self.norm1(cls).unsqueeze(1).expand(-1, groups.shape[1], -1, -1)
        return torch.cat([copies, groups], dim=2).flatten(0, 1)


class DividedBlock(SteppedBlock):
    """Divided space-time attention: over time at each place of a frame, then within each frame (paper, Section 3)."""

    steps: ClassVar = {"temporal": Groups(EACH, EACH, 1)}
    last = Groups(1, 1, EACH)


class AxialBlock(SteppedBlock):
    """Axial attention (paper, Figure 2): over time, then along columns, then along rows of a frame."""

    steps: ClassVar = {"temporal": Groups(EACH, EACH, 1), "height": Groups(1, EACH, EACH)}
    last = Groups(EACH, 1, EACH)


class LocalGlobalBlock(SteppedBlock):
    """Sparse local-global attention (paper, Figure 2): among neighbours, then at a distance over the whole clip.

    Local: each frame is cut into 2 x 2 windows, and a patch attends to the T x H/2 x W/2 patches of its window in all
    frames; where H or W is odd the first window is one larger. Global: a patch attends to every other patch in time
    and in both directions, counted from itself, which are T/2 x H/2 x W/2, and to the cls token. The cls token takes
    part in the global step, where it attends to all patches and itself.
    """

    steps: ClassVar = {"local": Groups(2, 2, 1)}
    last = Groups(2, 2, 2, strided=True)

    def _last_step(self, cls: Tensor, tokens: Tensor, *, cls_only: bool) -> tuple[Tensor, Tensor | None]:
        if cls_only:  # the cls token attends to every patch: one row a clip
            mixed = self._attend(self.attn, self._one_row, cls, tokens, first_only=True)
            return self.drop_path(mixed), None
        real = self.last.real(tokens)
        mixed = self._attend(self.attn, self._rows, cls, tokens, mix=partial(self._mix, cls.shape[0], real))
        mixed = self.drop_path(mixed)  # (B, 1 + G*L, D): one decision per clip, as for the MLP
        groups = math.prod(parts for parts, _ in self.last._cuts(tokens.shape))
        patches = rearrange(mixed[:, 1:], "b (g l) d -> b g l d", g=groups)
        return mixed[:, :1], self.last.ungroup(patches, tokens.shape)

    def _one_row(self, cls: Tensor, tokens: Tensor) -> Tensor:
        """Normed, cls and all patches: (B, 1 + H*W*T, D)."""
        return torch.cat([self.norm1(cls), self.norm1(tokens.flatten(1, 3))], dim=1)

    def _mix(self, batch: int, real: Tensor | None, qkv: Tensor) -> Tensor:
        """qkv (B*G, 1 + L, 3D) of cls and groups -> weighed values of cls, then of the patches group by group.

        Args:
            batch: B.
            real: (G, L), False for padding; None: there is none.

        Returns:
            (B, 1 + G*L, D).
        """
        attn = self.attn
        q, k, v = split_heads(qkv, attn.num_heads)  # (B*G, heads, 1 + L, D / heads)
        groups = q.shape[0] // batch
        seen = torch.ones(groups, q.shape[2], dtype=torch.bool, device=q.device)
        if real is not None:
            seen[:, 1:] = real
        patches = attn.attend(q[:, :, 1:], k, v, None if real is None else seen.repeat(batch, 1))
        seen[1:, 0] = False  # of its copies the cls token sees one
        all_k, all_v = (rearrange(x, "(b g) heads l d -> b heads (g l) d", b=batch) for x in (k, v))
        cls = attn.attend(q[::groups, :, :1], all_k, all_v, seen.view(1, -1))
        return torch.cat([cls, rearrange(patches, "(b g) l d -> b (g l) d", b=batch)], dim=1)
