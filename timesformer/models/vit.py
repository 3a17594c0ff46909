"""TimeSformer: a vision transformer over the patches of a few video frames ("Is Space-Time Attention All You Need
for Video Understanding?", Bertasius, Wang, Torresani, ICML 2021).

Letters: B clips, C channels, T frames, H W pixels, N patches per frame, D width, K classes.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, ClassVar

import torch
from einops import rearrange
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timesformer.models.blocks import LAYER_NORM_EPS, AxialBlock, Block, BlockLayers, DividedBlock, LocalGlobalBlock
from timesformer.models.contract import VideoModel
from timesformer.models.embeddings import PatchEmbed, sincos_1d, sincos_2d
from timesformer.models.frame_cls import CausalFrameClsBlock, FrameClsBlock
from timesformer.utils.registry import MODELS
from timesformer.utils.sizes import height_width
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights.load import load_weights

logger = logging.getLogger(__name__)

BLOCKS: dict[str, type[BlockLayers]] = {
    "divided_space_time": DividedBlock,
    "joint_space_time": Block,
    "space_only": Block,
    "sparse_local_global": LocalGlobalBlock,
    "axial": AxialBlock,
    "frame_cls": FrameClsBlock,
    "frame_cls_causal": CausalFrameClsBlock,
}
ATTENTION_TYPES = tuple(BLOCKS)
RECOMPUTE = ("none", "cheap", "blocks")
INITS = ("vit", "scratch")


class VisionTransformer(VideoModel):
    """Vision transformer with space-time attention; its parameter names are those of the released weights.

    Args:
        img_size: input side in pixels, or (height, width); multiples of `patch_size`.
        patch_size: side of a square patch in pixels.
        mlp_ratio: hidden width of the MLP over D.
        drop_rate: dropout after embeddings, projections and MLP layers.
        attn_drop_rate: dropout on attention weights.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 with depth.
        attention_type: one of `ATTENTION_TYPES`: the five of the paper's Figure 2, and two with a cls token per frame
            (see `FrameClsBlock`), whose clips may have any number of frames.
        init: "vit" for fine-tuning (std 0.02; the temporal branch starts as the identity) or "scratch" for
            training from scratch (sine-cosine embeddings of amplitude 1, linear layers of variance 1/fan_in).
        recompute: what training computes again in the backward pass instead of keeping it; the same gradients.
            "none"; "cheap", norms and GELUs; "blocks", all but what goes into each block (Chen et al., 2016,
            "Training Deep Nets with Sublinear Memory Cost").

    Attributes:
        grid: (rows, columns) of patches of a frame.

    Raises:
        ValueError: sizes that do not divide, or an unknown `attention_type`, `init` or `recompute`.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        num_frames: int = 8,
        attention_type: str = "divided_space_time",
        init: str = "vit",
        recompute: str = "none",
    ) -> None:
        super().__init__()
        height, width = height_width(img_size)
        if height % patch_size or width % patch_size:
            raise ValueError(f"a {height}x{width} input is not made of whole {patch_size}x{patch_size} patches")
        if embed_dim % num_heads:
            raise ValueError(f"width {embed_dim} is not divisible by {num_heads} attention heads")
        for name, value, allowed in (
            ("attention_type", attention_type, ATTENTION_TYPES),
            ("init", init, INITS),
            ("recompute", recompute, RECOMPUTE),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        self.attention_type, self.recompute, self.num_heads = attention_type, recompute, num_heads
        self.input_shape = (in_chans, num_frames, height, width)  # (C, T, H, W)
        self.grid = (height // patch_size, width // patch_size)
        num_patches = self.grid[0] * self.grid[1]

        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, embed_dim))
        if self.has_time_embed:
            self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            BLOCKS[attention_type](
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=drop_path_rate * i / max(depth - 1, 1),
                recompute=recompute == "cheap",
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(embed_dim, num_classes)
        self.init_vit() if init == "vit" else self.init_scratch()

    @property
    def by_frame(self) -> bool:
        """Whether each frame has a cls token of its own; its time is then relative, or without meaning."""
        return self.attention_type.startswith(("space_only", "frame_cls"))

    @property
    def has_time_embed(self) -> bool:
        """Whether time is embedded, as everywhere but where each frame has a cls token."""
        return not self.by_frame

    @torch.no_grad()
    def init_vit(self) -> None:
        """The ViT convention, truncated normal of std 0.02; `time_embed`, `temporal_fc` and its like start at zero."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.endswith("_fc"):
                    nn.init.zeros_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.no_grad()
    def init_scratch(self) -> None:
        """Sine-cosine position and time of amplitude 1, and variance 1/fan_in: small models learn from scratch."""
        nn.init.normal_(self.cls_token, std=0.02)
        self.pos_embed[0, 1:] = sincos_2d(*self.grid, self.pos_embed.shape[2])
        if self.has_time_embed:
            self.time_embed[0] = sincos_1d(*self.time_embed.shape[1:])
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, besides biases and norms."""
        return {"cls_token", "pos_embed", "time_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Names to layers, as timm's layer decay requires: stem, each block, and the rest (norm and head) last."""
        return {"stem": r"(?:cls_token|pos_embed|time_embed|patch_embed)", "blocks": r"blocks\.(\d+)"}

    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Any:
        """Clips (B, C, T, H, W) -> the normed cls token (B, D).

        Args:
            x: float clips.
            all_tokens: return the normed patch tokens too, (B, T, rows, columns, D). Without, the last block computes
                the cls token only, since no other is used after it.
        """
        expected = self.input_shape
        if x.ndim == 5 and self.attention_type.startswith("frame_cls"):
            expected = (expected[0], x.shape[2], *expected[2:])  # relative time: any number of frames
        if x.ndim != 5 or x.shape[1:] != expected:
            raise ValueError(
                f"input of shape {tuple(x.shape)} (clips, channels, frames, height, width), but the model is built for "
                f"{' x '.join(map(str, self.input_shape))}; build it with the matching img_size and num_frames"
            )
        encode = self._encode_frames if self.by_frame else self._encode_clip
        cls, tokens = encode(x, all_tokens)
        if not all_tokens:
            return self.norm(cls)
        order = "b (t h w) d -> b t h w d" if self.by_frame else "b (h w t) d -> b t h w d"
        return self.norm(cls), self.norm(rearrange(tokens, order, t=x.shape[2], h=self.grid[0]))

    def _encode_frames(self, x: Tensor, all_tokens: bool) -> tuple[Tensor, Tensor]:
        """A cls token per frame: the last or their mean (B, D), and patch tokens (B, T*N, D)."""
        tokens = self.patch_embed(x, time_first=True) + self.pos_embed[:, 1:]  # (B, T, N, D)
        cls = (self.cls_token + self.pos_embed[:, :1]).unsqueeze(1).expand(*tokens.shape[:2], -1, -1)
        tokens = self.drop(torch.cat([cls, tokens], dim=2))  # (B, T, 1 + N, D)
        if self.attention_type == "space_only":  # frames are rows of their own
            (out,) = self._encode(tokens.flatten(0, 1), all_tokens=all_tokens)
            tokens = out.unflatten(0, (x.shape[0], -1))
        else:
            (tokens,) = self._encode(tokens, all_tokens=all_tokens)
        cls = tokens[:, -1, 0] if self.attention_type == "frame_cls_causal" else tokens[:, :, 0].mean(1)
        return cls, tokens[:, :, 1:].flatten(1, 2)

    def _encode_clip(self, x: Tensor, all_tokens: bool) -> tuple[Tensor, Tensor]:
        """Attention over space and time: the cls token (B, D), and patch tokens (B, N*T, D), t fastest."""
        tokens = self.patch_embed(x, time_first=False) + self.pos_embed[:, 1:].unsqueeze(2) + self.time_embed
        cls = self.drop((self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1))  # (B, 1, D)
        tokens = self.drop(tokens)  # (B, N, T, D)
        if self.attention_type == "joint_space_time":
            out = self._encode(torch.cat([cls, tokens.flatten(1, 2)], dim=1), all_tokens=all_tokens)[0]
            return out[:, 0], out[:, 1:]
        grid = rearrange(tokens, "b (h w) t d -> b h w t d", h=self.grid[0])
        cls, tokens = self._encode(cls, grid, all_tokens=all_tokens)
        return cls[:, 0], tokens.flatten(1, 3)

    def _encode(self, *inputs: Tensor, all_tokens: bool) -> tuple[Tensor, ...]:
        """The outputs of the last block; dropout draws the same numbers when a block is computed again."""
        again = self.recompute == "blocks" and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            cls_only = block is self.blocks[-1] and not all_tokens
            run = partial(checkpoint, block, use_reentrant=False) if again else block
            outputs = run(*inputs, cls_only=cls_only)
            inputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return inputs


@MODELS.register("TimeSformer", "vit_base_patch16_224")
class TimeSformer(VideoModel):
    """TimeSformer with ViT-B/16 sizes by default; any `VisionTransformer` argument can be given.

    Args:
        pretrained_model: weights to start from, resized where they differ: a file, a Hugging Face folder,
            "hf:REPO_ID" or "timm:NAME"; a head of another size is reinitialised. Empty: none.

    Attributes:
        model: the `VisionTransformer`.
        pretrained_report: what was loaded from `pretrained_model` and what was not; empty without one.

    Raises:
        CheckpointError: `pretrained_model` does not fit.

    Example:
        >>> model = TimeSformer(img_size=224, num_classes=400, num_frames=8, attention_type="divided_space_time")
        >>> logits = model(torch.randn(2, 3, 8, 224, 224))  # (2, 400)
    """

    attention_types: ClassVar[tuple[str, ...]] = ATTENTION_TYPES  # that the class may have

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 400,
        num_frames: int = 8,
        attention_type: str = "divided_space_time",
        pretrained_model: str = "",
        *,
        qkv_bias: bool = True,
        **vit_arguments: Any,
    ) -> None:
        super().__init__()
        self.model = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=num_classes,
            num_frames=num_frames,
            attention_type=attention_type,
            qkv_bias=qkv_bias,
            **vit_arguments,
        )
        self.pretrained_report = str(load_weights(self, pretrained_model)) if pretrained_model else ""
        if self.pretrained_report:
            logger.info(self.pretrained_report)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TimeSformer:
        """The model that the configuration describes, initialised and without weights from a file."""
        vit, types = cfg.TIMESFORMER, cls.attention_types
        sizes = {"embed_dim": vit.EMBED_DIM, "depth": vit.DEPTH, "num_heads": vit.NUM_HEADS}
        return cls(
            img_size=height_width(cfg.DATA.TRAIN_CROP_SIZE),
            patch_size=vit.PATCH_SIZE,
            num_classes=cfg.MODEL.NUM_CLASSES,
            num_frames=cfg.DATA.NUM_FRAMES,
            in_chans=ClipSpec.from_config(cfg).input_shape[0],
            attention_type=vit.ATTENTION_TYPE if vit.ATTENTION_TYPE in types else types[0],
            qkv_bias=vit.QKV_BIAS,
            mlp_ratio=vit.MLP_RATIO,
            drop_rate=cfg.MODEL.DROP_RATE,
            attn_drop_rate=cfg.MODEL.ATTN_DROP_RATE,
            drop_path_rate=cfg.MODEL.DROP_PATH_RATE,
            init=vit.INIT,
            recompute=cfg.MODEL.RECOMPUTE,
            **{name: value for name, value in sizes.items() if value != "auto"},
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the clips that the model is built for."""
        return self.model.input_shape

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks."""
        return self.model.blocks

    @property
    def head(self) -> nn.Linear:
        """The linear classifier on the cls token."""
        return self.model.head

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, besides biases and norms."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Names to layers; see `VisionTransformer.group_matcher`."""
        return {layer: rf"model\.{pattern}" for layer, pattern in self.model.group_matcher(coarse).items()}

    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Any:
        """Clips (B, C, T, H, W) -> the normed cls token (B, D); see `VisionTransformer.forward_features`."""
        return self.model.forward_features(x, all_tokens=all_tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B, C, T, H, W), float -> logits (B, K)."""
        return self.model(x)  # type: ignore[no-any-return]
