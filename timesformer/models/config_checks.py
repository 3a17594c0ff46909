"""Cross-checks of the settings of TimeSformer and its variants, before the model is built."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator

from fvcore.common.config import CfgNode

from timesformer.config.check import format_list
from timesformer.config.defaults import KEY_BY_NAME
from timesformer.models import light, stream  # noqa: F401  (imported so that it registers)
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.utils.registry import MODELS
from timesformer.utils.sizes import height_width

MOST_TOKENS, MOST_PARAMETERS = 1_000_000, 20e9  # of a clip, of a model: what no machine of today trains


def transformer_problems(cfg: CfgNode) -> Iterator[str]:
    """Contradictions of patch size, crop sizes, width and heads, one line each; none for other models."""
    model, vit = MODELS.get(cfg.MODEL.MODEL_NAME), cfg.TIMESFORMER
    if not (isinstance(model, type) and issubclass(model, TimeSformer)):
        return
    patch, whole_patches = vit.PATCH_SIZE, True
    for key in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE"):
        size = cfg.DATA[key]
        sides = [size] if isinstance(size, int) else size
        if any(side % patch for side in sides):
            whole_patches = False
            below = [max(side // patch, 1) * patch for side in sides]
            above = [-(-side // patch) * patch for side in sides]
            down, up = (str(near[0]) if len(near) == 1 else format_list(near) for near in (below, above))
            yield (
                f"DATA.{key} {size} is not a multiple of TIMESFORMER.PATCH_SIZE {patch}; "
                f"nearest: {up if down == up else f'{down} and {up}'}. Type DATA.{key} {down}"
            )
    train, test = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE
    if whole_patches and height_width(train) != height_width(test):
        yield (
            f"DATA.TRAIN_CROP_SIZE {train} differs from DATA.TEST_CROP_SIZE {test}, but the position embedding of "
            f"{cfg.MODEL.MODEL_NAME} has one size. Type DATA.TEST_CROP_SIZE {str(train).replace(' ', '')}"
        )
    if vit.ATTENTION_TYPE not in (*model.attention_types, KEY_BY_NAME["TIMESFORMER.ATTENTION_TYPE"].default):
        yield (
            f"TIMESFORMER.ATTENTION_TYPE {vit.ATTENTION_TYPE} is none of {cfg.MODEL.MODEL_NAME}, which has "
            f"{' and '.join(model.attention_types)}. Type TIMESFORMER.ATTENTION_TYPE {model.attention_types[0]}"
        )
    defaults = {**inspect.signature(VisionTransformer).parameters, **inspect.signature(model).parameters}
    auto_width, auto_heads = defaults["embed_dim"].default, defaults["num_heads"].default
    width = auto_width if vit.EMBED_DIM == "auto" else vit.EMBED_DIM
    heads = auto_heads if vit.NUM_HEADS == "auto" else vit.NUM_HEADS
    yield from _size_problems(cfg, width)
    if width % heads:
        fitting = max(n for n in range(1, heads) if width % n == 0)
        yield (
            f"TIMESFORMER.EMBED_DIM {width} is not divisible by TIMESFORMER.NUM_HEADS {heads} "
            f"(auto is {auto_width} and {auto_heads}). "
            f"Type TIMESFORMER.NUM_HEADS {fitting} or TIMESFORMER.EMBED_DIM {-(-width // heads) * heads}"
        )
    elif width // heads % 2 and (model.attention_types[0].startswith("frame_cls") or "frame_cls" in vit.ATTENTION_TYPE):
        yield (
            f"TIMESFORMER.EMBED_DIM {width} over TIMESFORMER.NUM_HEADS {heads} is an odd width of a head "
            f"({width // heads}), and time rotates pairs of channels. Type TIMESFORMER.EMBED_DIM {width + heads}"
        )


def _size_problems(cfg: CfgNode, width: int) -> Iterator[str]:
    """Models and clips that are larger than any machine."""
    vit, crop = cfg.TIMESFORMER, cfg.DATA.TEST_CROP_SIZE
    patches = math.prod(math.ceil(side / vit.PATCH_SIZE) for side in height_width(crop))
    if (tokens := cfg.DATA.NUM_FRAMES * patches) > MOST_TOKENS:
        yield (
            f"DATA.NUM_FRAMES {cfg.DATA.NUM_FRAMES} and DATA.TEST_CROP_SIZE {crop} in patches of "
            f"TIMESFORMER.PATCH_SIZE {vit.PATCH_SIZE} are {tokens:,} tokens. "
            "Type TIMESFORMER.PATCH_SIZE 16 or fewer frames"
        )
    depth = 12 if vit.DEPTH == "auto" else vit.DEPTH
    if (size := depth * (8 + 2 * vit.MLP_RATIO) * width**2) > MOST_PARAMETERS:
        yield (
            f"TIMESFORMER.EMBED_DIM {width} and TIMESFORMER.DEPTH {depth} are {size / 1e9:.0f} billion parameters. "
            "Type TIMESFORMER.EMBED_DIM 768 TIMESFORMER.DEPTH 12"
        )
