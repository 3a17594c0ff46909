"""What every model of the registry offers, so that training, freezing, sharding and prediction know no other names."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class VideoModel(nn.Module):
    """A classifier of clips. A new backbone is one file with a subclass under `@MODELS.register("Name")`.

    Letters: B clips, C channels, T frames, H W pixels, D width of the features, K classes. T' H' W' are the frames,
    rows and columns of tokens (of patches, or of a feature map).

    Besides what is listed here a class has `from_config(cfg)`, a classmethod that builds the model which the
    configuration describes. A vision transformer of this project also has `attention_type`, `grid` and `num_heads`.

    Attributes:
        input_shape: (C, T, H, W) of the clips that the model is built for.
        blocks: the layers in order from input to output: units of freezing, sharding (FSDP2) and rates by layer.
        head: the classifier; its last layer has one row for each class.
    """

    input_shape: Any  # tuple[int, int, int, int]
    blocks: Any  # Sequence[nn.Module]
    head: Any  # nn.Module

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, besides biases and norms."""
        return set()

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions on parameter names as timm's layer decay takes them: `stem`, and `blocks` with a number.

        What neither matches (norm and head) lies above the last block.
        """

    @abstractmethod
    def forward_features(self, x: Tensor, *, all_tokens: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Clips (B, C, T, H, W) -> what the head reads, (B, D).

        Args:
            x: float clips.
            all_tokens: return the final tokens too, (B, T', H', W', D).
        """

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B, C, T, H, W), float -> logits (B, K)."""
        logits: Tensor = self.head(self.forward_features(x))
        return logits
