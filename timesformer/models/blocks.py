"""Transformer blocks: all tokens in one attention, or attention in steps over time and space.

Letters: B clips, T frames, H W patches of a frame, N = H*W, D width, R rows (independent sequences), L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from timesformer.models.attention import Attention, heads_of
from timesformer.models.drop_path import DropPath
from timesformer.models.groups import EACH, Groups
from timesformer.models.linear import Linear, LinearPair

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
            self.add_module(f"{step}_pair", LinearPair())
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def _mlp(self, x: Tensor) -> Tensor:
        if not self._recomputes:
            return self.mlp(self.norm2(x))
        mlp = self.mlp
        hidden = self._cheap(lambda x: mlp.fc1(self.norm2(x)), x)
        return self._cheap(lambda hidden: mlp.drop(mlp.fc2(mlp.drop(F.gelu(hidden)))), hidden)

    @property
    def _recomputes(self) -> bool:
        return self.recompute and self.training and torch.is_grad_enabled()

    def _cheap(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """`function(*inputs)`, which ends in a linear layer: that is not computed again, only what it is given."""
        if self._recomputes:
            draws = self.mlp.drop.p > 0.0
            return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws)
        return function(*inputs)


class Block(BlockLayers):
    """Attention among all tokens of a row, then MLP; the first token is the cls token."""

    def forward(self, x: Tensor, *, cls_only: bool = False) -> Tensor:
        """(R, L, D) -> (R, L, D), or the first token of it, (R, 1, D), with `cls_only`."""
        attn = self.attn
        if cls_only:
            mixed = attn.attend(*self._cheap(lambda x: attn.project_first(self.norm1(x)), x))
            x = x[:, :1]
        else:
            mixed = attn.mix(self._cheap(lambda x: attn.qkv(self.norm1(x)), x))
        x = x + self.drop_path(attn.proj_drop(attn.proj(mixed)))
        return x + self.drop_path(self._mlp(x))


class SteppedBlock(BlockLayers):
    """Attention in steps: first among patches only, in groups; at last with the cls token in every group; then MLP.

    The cls token is passed apart from the patch tokens, so that neither has to be cut out of, or joined to, the other.
    In the last step every group has the same cls token, and what comes back for it is averaged.
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
        norm, attn = getattr(self, f"{step}_norm1"), getattr(self, f"{step}_attn")
        pair, linear = getattr(self, f"{step}_pair"), getattr(self, f"{step}_fc")
        qkv = self._cheap(lambda tokens: attn.qkv(groups.group(norm(tokens)).flatten(0, 1)), tokens)
        real = groups.real(tokens)
        mixed = attn.mix(qkv, None if real is None else real.repeat(len(tokens), 1))  # (B*G, L, D)
        mixed = pair(mixed, attn.proj, linear, dropout=attn.proj_drop, drop_path=self.drop_path)
        return groups.ungroup(mixed.unflatten(0, (len(tokens), -1)), tokens.shape)

    def _last_step(self, cls: Tensor, tokens: Tensor, *, cls_only: bool) -> tuple[Tensor, Tensor | None]:
        """What attention adds to cls and, without `cls_only`, to tokens."""
        attn = self.attn
        if cls_only:
            mixed = attn.attend(*self._cheap(lambda *x: attn.project_first(self._rows(*x)), cls, tokens))
        else:
            mixed = attn.mix(self._cheap(lambda *x: attn.qkv(self._rows(*x)), cls, tokens))
        mixed = attn.proj_drop(attn.proj(mixed))
        mixed = self.drop_path(mixed).unflatten(0, (len(cls), -1))  # (B, G, 1 + L, D), each group dropped on its own
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
        attn, batch = self.attn, len(cls)
        if cls_only:
            heads = self._cheap(
                lambda cls, x: attn.project_first(torch.cat([self.norm1(cls), self.norm1(x.flatten(1, 3))], dim=1)),
                cls,
                tokens,
            )
            return self.drop_path(attn.proj_drop(attn.proj(attn.attend(*heads)))), None
        qkv = self._cheap(lambda *x: attn.qkv(self._rows(*x)), cls, tokens)
        q, k, v = heads_of(qkv, attn.num_heads)  # (B*G, heads, 1 + L, D / heads)
        real = self.last.real(tokens)
        groups = len(q) // batch
        seen = torch.ones(groups, q.shape[2], dtype=torch.bool, device=q.device)
        if real is not None:
            seen[:, 1:] = real
        mixed = attn.attend(q[:, :, 1:], k, v, None if real is None else seen.repeat(batch, 1))
        seen[1:, 0] = False  # of its copies the cls token sees one
        all_k, all_v = (x.unflatten(0, (batch, groups)).transpose(1, 2).flatten(2, 3) for x in (k, v))
        cls_mixed = attn.attend(q[::groups, :, :1], all_k, all_v, seen.view(1, -1))
        cls_out, tokens_out = attn.proj_drop(attn.proj(cls_mixed)), attn.proj_drop(attn.proj(mixed))
        tokens_out = self.last.ungroup(tokens_out.unflatten(0, (batch, groups)), tokens.shape)
        factor = self.drop_path.row_factor(cls_out)  # one decision per clip, as for the MLP
        if factor is not None:
            cls_out, tokens_out = cls_out * factor, tokens_out * factor[..., None, None]
        return cls_out, tokens_out
