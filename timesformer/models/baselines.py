"""Baselines: the video CNNs and transformers of torchvision, untrained, under their own names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.models.contract import VideoModel
from timesformer.utils.errors import ConfigError
from timesformer.utils.registry import MODELS
from timesformer.utils.sizes import height_width
from timesformer.video.clip_spec import ClipSpec

# Methods that a torchvision network lacks for the contract are added to the network itself (its class is replaced by a
# subclass, as FSDP2 does), so that its parameters keep torchvision's names.


class _Network(VideoModel):
    """What torchvision's networks have in common; their layers are attributes under torchvision's names."""

    stem_pattern: str
    block_pattern: str

    def __getattr__(self, name: str) -> Any:  # for the type checker: a layer may be any module
        return super().__getattr__(name)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": self.stem_pattern, "blocks": self.block_pattern}


class _ResNet(_Network):
    """`VideoResNet`: r3d_18, mc3_18, r2plus1d_18."""

    stem_pattern, block_pattern = r"stem", r"layer(\d)\."

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [getattr(self, f"layer{number}") for number in (1, 2, 3, 4)]

    @property
    def head(self) -> nn.Module:
        return self.fc

    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        features = self.avgpool(x).flatten(1)
        return (features, rearrange(x, "b d t h w -> b t h w d")) if all_tokens else features


class _Inception(_Network):
    """`S3D`, whose classifier is a convolution that is applied to the pooled map."""

    stem_pattern, block_pattern = r"features\.0\.", r"features\.(\d+)\."

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.features)[1:]

    @property
    def head(self) -> nn.Module:
        return self.classifier

    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Any:
        x = self.features(x)
        features = self.avgpool(x).mean((2, 3, 4))
        return (features, rearrange(x, "b d t h w -> b t h w d")) if all_tokens else features


class _Swin(_Network):
    """`SwinTransformer3d`."""

    stem_pattern, block_pattern = r"patch_embed", r"features\.(\d+)\."

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.features)

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if "relative_position_bias_table" in name}

    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Any:
        tokens = self.norm(self.features(self.pos_drop(self.patch_embed(x))))  # (B, T', H', W', D)
        features = tokens.mean((1, 2, 3))
        return (features, tokens) if all_tokens else features


class _Mvit(_Network):
    """`MViT`."""

    stem_pattern, block_pattern = r"(?:conv_proj|pos_encoding)", r"blocks\.(\d+)\."

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.startswith("pos_encoding") or "rel_pos" in name}

    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Any:
        x = self.conv_proj(x)
        x = self.pos_encoding(x.flatten(2).transpose(1, 2))
        size = self.pos_encoding.temporal_size, *self.pos_encoding.spatial_size
        for block in self.blocks:
            x, size = block(x, size)
        x = self.norm(x)
        features, (frames, rows, _) = x[:, 0], size
        return (features, rearrange(x[:, 1:], "b (t h w) d -> b t h w d", t=frames, h=rows)) if all_tokens else features


@dataclass(frozen=True)
class Baseline:
    """A model of `torchvision.models.video`, with torchvision's own forward pass, dropout and stochastic depth."""

    name: str  # of torchvision's function
    methods: type[Any]  # of the contract

    def __call__(
        self, *, num_classes: int = 400, num_frames: int = 16, img_size: int | tuple[int, int] = 224
    ) -> nn.Module:
        """The network for clips of `num_frames` frames of `img_size` pixels, a side or (height, width)."""
        return self.build((3, num_frames, *height_width(img_size)), num_classes)

    def build(self, clip_shape: tuple[int, int, int, int], num_classes: int) -> nn.Module:
        """The network for clips (C, T, H, W), with the methods of the contract."""
        from torchvision.models import video  # seconds: not at import of this file

        net: nn.Module = getattr(video, self.name)(weights=None, num_classes=num_classes)
        network, own_forward = type(net), type(net).forward

        def forward(self: nn.Module, x: Tensor) -> Any:
            if x.is_cuda and issubclass(network, (video.VideoResNet, video.S3D)):
                x = x.contiguous(memory_format=torch.channels_last_3d)  # as cuDNN multiplies in half precision
            return own_forward(self, x)

        net.__class__ = type(network.__name__, (self.methods, network), {"forward": forward})
        net.input_shape = clip_shape  # type: ignore[assignment]
        return net

    def from_config(self, cfg: CfgNode) -> nn.Module:
        """The model, after its clips were tried on torch's meta device, which computes shapes only.

        Raises:
            ConfigError: clips that the model cannot take, or recomputation.
        """
        if cfg.MODEL.RECOMPUTE != "none":
            raise ConfigError(
                f"MODEL.RECOMPUTE {cfg.MODEL.RECOMPUTE} is for the transformers of this project, not for {self.name}. "
                "Type MODEL.RECOMPUTE none"
            )
        if (channels := ClipSpec.from_config(cfg).input_shape[0]) != 3:
            raise ConfigError(
                f"DATA.INPUT {cfg.DATA.INPUT} gives {channels} channels, and {self.name} takes 3. Type DATA.INPUT rgb"
            )
        build = partial(self.build, num_classes=cfg.MODEL.NUM_CLASSES)
        sizes = map(height_width, (cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE))
        shapes = [(3, cfg.DATA.NUM_FRAMES, *size) for size in sizes]
        for shape in shapes:
            try:
                with torch.device("meta"), torch.no_grad():
                    build(shape).eval()(torch.empty(1, *shape))
            except (RuntimeError, ValueError, ZeroDivisionError, IndexError) as error:
                raise ConfigError(
                    f"{self.name} cannot take clips of {shape[1]} frames of {shape[2]}x{shape[3]} pixels "
                    f"({str(error).splitlines()[0]}). Use other sizes, "
                    "such as DATA.NUM_FRAMES 16 DATA.TRAIN_CROP_SIZE 224 DATA.TEST_CROP_SIZE 224."
                ) from error
        return build(shapes[-1])


_FAMILIES: dict[type[Any], tuple[str, ...]] = {
    _ResNet: ("r3d_18", "mc3_18", "r2plus1d_18"),
    _Inception: ("s3d",),
    _Mvit: ("mvit_v1_b", "mvit_v2_s"),
    _Swin: ("swin3d_t", "swin3d_s", "swin3d_b"),
}
for _methods, _names in _FAMILIES.items():
    for _name in _names:
        MODELS.register(_name)(Baseline(_name, _methods))
