"""Multiply-accumulates of TimeSformer as published, where every token goes through every layer."""

from __future__ import annotations

from timesformer.models.vit import VisionTransformer


def published_multiply_accumulates(model: VisionTransformer) -> int | None:
    """Those of one clip's matrix products and convolutions, as torch's counter counts them.

    None for the sparse schemes: no implementation of them was published.
    """
    channels, num_frames, *_ = model.input_shape
    num_patches, dim = model.grid[0] * model.grid[1], model.cls_token.shape[2]
    hidden_dim, patches = model.get_parameter("blocks.0.mlp.fc1.weight").shape[0], num_frames * num_patches

    def attention(rows: int, length: int) -> int:
        """Queries, keys, values and projection, then the scores and the weighted sums."""
        return rows * (4 * length * dim**2 + 2 * length**2 * dim)

    if model.attention_type == "divided_space_time":
        tokens = 1 + patches
        block = attention(num_patches, num_frames) + patches * dim**2 + attention(num_frames, 1 + num_patches)
    elif model.attention_type == "joint_space_time":
        tokens = 1 + patches
        block = attention(1, tokens)
    elif model.attention_type == "space_only":
        tokens = num_frames * (1 + num_patches)
        block = attention(num_frames, 1 + num_patches)
    else:
        return None
    block += 2 * tokens * dim * hidden_dim
    stem = patches * channels * model.patch_embed.patch_size**2 * dim
    return stem + len(model.blocks) * block + dim * model.head.out_features
