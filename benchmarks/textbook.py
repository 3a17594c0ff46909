"""TimeSformer as one writes it down from the paper, to compare with: nothing fused, folded, shared or left out.

Tokens are copied into the order of each attention, the cls token is repeated and concatenated, softmax is explicit,
`proj` and `temporal_fc` are two layers, every token goes through every block. Parameters are named as in
`VisionTransformer`.

Letters: B clips, C channels, T frames, H W pixels, N patches per frame, D width, R rows, L tokens of a row, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timesformer.models.vit import VisionTransformer

EPS = 1e-6


class Attention(nn.Module):
    """Softmax attention among the tokens of a row."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        """(R, L, D) -> (R, L, D), or what the first `num_queries` tokens see."""
        rows, length, dim = x.shape
        qkv = self.qkv(x).reshape(rows, length, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (R, heads, L, D / heads)
        q = q[:, :, :num_queries]
        weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(dim=3)
        return self.proj((weights @ v).transpose(1, 2).reshape(rows, -1, dim))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Space-only and joint attention: one attention among the tokens it is given."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, qkv_bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, hidden_dim)

    def forward(self, x: Tensor, num_frames: int, grid: tuple[int, int]) -> Tensor:
        """(R, L, D) -> (R, L, D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DividedBlock(Block):
    """Time, then space, then MLP; the cls token joins every frame and comes back as their mean."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, qkv_bias: bool) -> None:
        super().__init__(dim, num_heads, hidden_dim, qkv_bias)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=EPS)
        self.temporal_attn = Attention(dim, num_heads, qkv_bias)
        self.temporal_fc = nn.Linear(dim, dim)

    def forward(self, x: Tensor, num_frames: int, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + N*T, D) -> (B, 1 + N*T, D)."""
        batch, _, dim = x.shape
        cls, tokens = x[:, :1], x[:, 1:]

        temporal = self.temporal_attn(self.temporal_norm1(tokens.reshape(-1, num_frames, dim)))  # (B*N, T, D)
        tokens = tokens + self.temporal_fc(temporal.reshape(batch, -1, dim))

        frames = tokens.reshape(batch, -1, num_frames, dim).transpose(1, 2).reshape(batch * num_frames, -1, dim)
        cls_of_frames = cls.repeat(1, num_frames, 1).reshape(batch * num_frames, 1, dim)
        spatial = self.attn(self.norm1(torch.cat([cls_of_frames, frames], dim=1)))  # (B*T, 1 + N, D)
        cls_update = spatial[:, 0].reshape(batch, num_frames, dim).mean(dim=1, keepdim=True)
        updates = spatial[:, 1:].reshape(batch, num_frames, -1, dim).transpose(1, 2).reshape(batch, -1, dim)

        x = torch.cat([cls, tokens], dim=1) + torch.cat([cls_update, updates], dim=1)
        return x + self.mlp(self.norm2(x))


class GroupedBlock(Block, ABC):
    """Attention in steps among groups of patches, the last with the cls token; then MLP.

    Attributes:
        first_steps: names of the steps before the last.
    """

    first_steps: tuple[str, ...]

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, qkv_bias: bool) -> None:
        super().__init__(dim, num_heads, hidden_dim, qkv_bias)
        for step in self.first_steps:
            self.add_module(f"{step}_norm1", nn.LayerNorm(dim, eps=EPS))
            self.add_module(f"{step}_attn", Attention(dim, num_heads, qkv_bias))
            self.add_module(f"{step}_fc", nn.Linear(dim, dim))

    @abstractmethod
    def group_numbers(self, step: str, h: Tensor, w: Tensor, t: Tensor, grid: tuple[int, int]) -> Tensor:
        """The group of each patch, whose row, column and frame are given, (N*T,)."""

    def groups(self, step: str, num_frames: int, grid: tuple[int, int], device: torch.device) -> list[Tensor]:
        """Indices into the patches (N*T), a row for each group (G, L); groups of one size together."""
        h, w, t = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (*grid, num_frames))).unbind(1)
        numbers = self.group_numbers(step, h, w, t, grid)
        sizes: dict[int, list[Tensor]] = {}
        for number in numbers.unique():
            members = (numbers == number).nonzero().flatten()
            sizes.setdefault(len(members), []).append(members)
        return [torch.stack(rows) for rows in sizes.values()]

    def forward(self, x: Tensor, num_frames: int, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + N*T, D) -> (B, 1 + N*T, D)."""
        (batch, _, dim), cls, tokens = x.shape, x[:, :1], x[:, 1:]
        for step in self.first_steps:
            normed, updates = getattr(self, f"{step}_norm1")(tokens), torch.zeros_like(tokens)
            for rows in self.groups(step, num_frames, grid, x.device):
                mixed = getattr(self, f"{step}_attn")(normed[:, rows].flatten(0, 1))
                updates[:, rows] = mixed.reshape(batch, *rows.shape, dim).to(updates.dtype)
            tokens = tokens + getattr(self, f"{step}_fc")(updates)

        normed, updates, cls_updates = self.norm1(torch.cat([cls, tokens], dim=1)), torch.zeros_like(tokens), []
        for rows in self.groups("last", num_frames, grid, x.device):
            cls_rows = torch.zeros(len(rows), 1, dtype=rows.dtype, device=rows.device)
            mixed = self.attn(normed[:, torch.cat([cls_rows, 1 + rows], dim=1)].flatten(0, 1))
            mixed = mixed.reshape(batch, len(rows), -1, dim)
            updates[:, rows] = mixed[:, :, 1:].to(updates.dtype)
            cls_updates.append(mixed[:, :, 0])
        cls_update = self.update_of_cls(normed, torch.cat(cls_updates, dim=1))
        x = torch.cat([cls, tokens], dim=1) + torch.cat([cls_update, updates], dim=1)
        return x + self.mlp(self.norm2(x))

    def update_of_cls(self, normed: Tensor, of_groups: Tensor) -> Tensor:
        """What attention adds to the cls token (B, 1, D).

        Args:
            normed: the whole clip (B, 1 + N*T, D).
            of_groups: what the cls token saw in each group (B, G, D).
        """
        return of_groups.mean(dim=1, keepdim=True)


class AxialBlock(GroupedBlock):
    """Time, then columns, then rows of a frame; the cls token joins every row and comes back as their mean."""

    first_steps = ("temporal", "height")

    def group_numbers(self, step: str, h: Tensor, w: Tensor, t: Tensor, grid: tuple[int, int]) -> Tensor:
        if step == "temporal":
            return h * grid[1] + w
        return (w if step == "height" else h) + t * max(grid)


class LocalGlobalBlock(GroupedBlock):
    """One of 2 x 2 windows in all frames, then every other patch in time and both directions; cls attends to all."""

    first_steps = ("local",)

    def group_numbers(self, step: str, h: Tensor, w: Tensor, t: Tensor, grid: tuple[int, int]) -> Tensor:
        if step == "local":
            height, width = ((side + 1) // 2 for side in grid)  # of the first window
            return 2 * (h // height) + w // width
        return 4 * (h % 2) + 2 * (w % 2) + t % 2

    def update_of_cls(self, normed: Tensor, of_groups: Tensor) -> Tensor:
        return self.attn(normed, num_queries=1)


BLOCKS: dict[str, type[Block]] = {
    "divided_space_time": DividedBlock,
    "joint_space_time": Block,
    "space_only": Block,
    "sparse_local_global": LocalGlobalBlock,
    "axial": AxialBlock,
}


class PatchEmbed(nn.Module):
    """A convolution over every frame."""

    def __init__(self, patch_size: int, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        """(B*T, C, H, W) -> (B*T, N, D)."""
        return self.proj(frames).flatten(2).transpose(1, 2)


class TextbookTimeSformer(nn.Module):
    """A copy of `model` in textbook form: the same weights under the same names, the same logits.

    It is on the model's device, in its mode, and has no dropout and no stochastic depth.

    Args:
        model: what to copy; on the meta device too.

    Raises:
        KeyError: an attention scheme that is not written here.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.attention_type, self.grid = model.attention_type, model.grid
        channels, num_frames, *_ = model.input_shape
        dim, hidden_dim = model.cls_token.shape[2], model.blocks[0].mlp.fc1.out_features
        attention = model.blocks[0].attn
        sizes = (dim, attention.num_heads, hidden_dim, attention.qkv.bias is not None)
        with torch.device("meta"):  # the weights come from `model`
            self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.empty_like(model.pos_embed, device="meta"))
            if self.attention_type != "space_only":
                self.time_embed = nn.Parameter(torch.empty(1, num_frames, dim))
            self.patch_embed = PatchEmbed(model.patch_embed.patch_size, channels, dim)
            self.blocks = nn.ModuleList(BLOCKS[self.attention_type](*sizes) for _ in model.blocks)
            self.norm = nn.LayerNorm(dim, eps=EPS)
            self.head = nn.Linear(dim, model.head.out_features)
        self.to_empty(device=model.cls_token.device)
        self.load_state_dict(model.state_dict())
        self.train(model.training)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> logits (B, K)."""
        batch, channels, num_frames, height, width = clips.shape
        frames = clips.transpose(1, 2).reshape(batch * num_frames, channels, height, width)
        tokens = self.patch_embed(frames)  # (B*T, N, D)
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        if self.attention_type != "space_only":
            dim = x.shape[2]
            cls, tokens = x[:batch, :1], x[:, 1:]
            tokens = tokens.reshape(batch, num_frames, -1, dim).transpose(1, 2).reshape(-1, num_frames, dim)
            tokens = (tokens + self.time_embed).reshape(batch, -1, dim)  # (B, N*T, D)
            x = torch.cat([cls, tokens], dim=1)
        for block in self.blocks:
            x = block(x, num_frames, self.grid)
        if self.attention_type == "space_only":
            x = x.reshape(batch, num_frames, *x.shape[1:]).mean(dim=1)
        return self.head(self.norm(x)[:, 0])
