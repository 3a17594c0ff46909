"""From pixels to patch tokens, and the sine-cosine tables that position and time embeddings can start from."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.models.cpu_kernels import linear


class PatchEmbed(nn.Module):
    """Linear projection of square patches of every frame (TimeSformer paper, Eq. 1).

    `proj` keeps the name and shape of a convolution, as released weights have it; since patches do not
    overlap it is computed as one matrix product, which gives the tokens in any order without a later copy.
    """

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor, *, time_first: bool) -> Tensor:
        """Clips (B, C, T, H, W) -> tokens (B, N, T, D), or (B, T, N, D) with `time_first`."""
        order = "b t (h w) (c p q)" if time_first else "b (h w) t (c p q)"
        patches = rearrange(x, f"b c t (h p) (w q) -> {order}", p=self.patch_size, q=self.patch_size)
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def sincos_1d(length: int, dim: int) -> Tensor:
    """Sines and cosines of `length` places, amplitude 1 ("Attention Is All You Need", Section 3.5).

    The frequencies are geometric from 1 to 1/length, not to 1/10000 as there: a clip has some ten places, over which
    nearly all of those waves would stand still and hardly a column tell two places apart.

    Returns:
        (length, dim); the first half of the columns are sines, the second half cosines.
    """
    num_frequencies = (dim + 1) // 2
    frequencies = length ** (-torch.arange(num_frequencies, dtype=torch.float64) / num_frequencies)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :dim].float()


def sincos_2d(height: int, width: int, dim: int) -> Tensor:
    """Sine-cosine table of a grid: half of the columns tell the row, the other half the column.

    Returns:
        (height * width, dim), row by row.
    """
    rows = sincos_1d(height, dim // 2)[:, None].expand(-1, width, -1)
    columns = sincos_1d(width, dim - dim // 2)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
