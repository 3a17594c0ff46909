"""Transformer blocks: attention, MLP, stochastic depth, and the plain and the divided space-time block.

Letters: B clips, T frames, N patches per frame, D width, R rows (independent sequences), L tokens of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-6
# Up to so many tokens a row, torch's fused attention costs more on a CPU than it saves (measured on training steps:
# 1.06 to 1.3x the time of the explicit form at 32 pixels, 96 wide, 8 frames; far more in bf16).
FEW_TOKENS = 32


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): zeroes whole rows in training and scales up the kept ones."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(R, ...) -> (R, ...), each of the R rows kept or dropped as a whole."""
        return x if (factor := self.row_factor(x)) is None else x * factor

    def row_factor(self, x: Tensor) -> Tensor | None:
        """What each row of `x` (R, ...) is multiplied by, shape (R, 1, ...); None when nothing is dropped."""
        if not self.training or self.drop_prob == 0.0:
            return None
        kept = torch.rand(x.shape[0], device=x.device) >= self.drop_prob
        return (kept.to(x.dtype) / (1.0 - self.drop_prob)).view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of each row."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """(R, L, D) -> (R, L, D)."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (R, L, 3, heads, D / heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (R, heads, L, D / heads), a view
        dropout_p = self.attn_drop if self.training else 0.0
        if x.device.type == "cpu" and x.shape[1] <= FEW_TOKENS:
            weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)).softmax(3)
            x = F.dropout(weights, dropout_p) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden_dim: int, *, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class Block(nn.Module):
    """Pre-norm transformer block: attention among all tokens of a row, then MLP."""

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
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(R, L, D) -> (R, L, D)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DividedBlock(nn.Module):
    """Divided space-time block: temporal attention, then spatial attention, then MLP (paper, Section 3, Figure 2).

    The cls token is passed apart from the patch tokens: temporal attention does not see it, and so neither
    has to be cut out of, or joined to, the other. Spatial attention gives every frame the same cls token
    and averages what comes back.
    """

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
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.temporal_attn = Attention(dim, num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)
        self.temporal_fc = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, cls: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """cls (B, 1, D) and tokens (B, N, T, D) -> the same shapes."""
        batch, num_frames = tokens.shape[0], tokens.shape[2]

        temporal = self.temporal_attn(self.temporal_norm1(tokens).flatten(0, 1))  # (B*N, T, D)
        temporal = self.temporal_fc(self.drop_path(temporal))
        tokens = tokens + temporal.unflatten(0, (batch, -1))

        frames = torch.cat([cls.unsqueeze(1).expand(-1, num_frames, -1, -1), tokens.transpose(1, 2)], dim=2)
        spatial = self.drop_path(self.attn(self.norm1(frames.flatten(0, 1))))  # (B*T, 1 + N, D)
        spatial = spatial.unflatten(0, (batch, -1))
        cls = cls + spatial[:, :, :1].mean(1)
        tokens = tokens + spatial[:, :, 1:].transpose(1, 2)

        cls_mlp, tokens_mlp = self.mlp(self.norm2(cls)), self.mlp(self.norm2(tokens))
        factor = self.drop_path.row_factor(tokens_mlp)  # one decision per clip, for cls and patches alike
        if factor is None:
            return cls + cls_mlp, tokens + tokens_mlp
        return cls + cls_mlp * factor.squeeze(1), tokens + tokens_mlp * factor
