"""Chooses the configuration for clips and a machine, and writes it as a file that needs no further key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from timesformer.config.load import load_config
from timesformer.datasets.manifest import FILE, ManifestRow
from timesformer.utils.console import count

LARGE_GPU_GB = 15.0  # from which ViT-B is fine-tuned
MANY_CLIPS = 2000  # training clips, from which training from scratch is worth it
WHOLE_VIDEO_SEC = 10.0  # up to this median, a clip spans the whole video
MAY_REPEAT = 0.25  # of the videos may show frames twice: weights were trained with the recipe's number
MOST_VIEWS = 10  # clips of a video in a test
MIN_STEPS = 4  # of an epoch
K400, IMAGES, SCRATCH, SMALL = "Own/gestures_gpu", "Own/from_image_weights", "Own/from_scratch", "Own/gestures_cpu"


@dataclass(frozen=True)
class Machine:
    """What decides the recipe."""

    gpu_gb: float = 0.0  # memory of the first GPU; 0 without one
    k400_weights: str = ""  # a file of them, "" without
    image_weights: bool = False  # those of `from_image_weights` are in a cache or can be downloaded
    cache_gb: float = 0.0  # free for decoded frames


Settings = dict[str, tuple[Any, str]]  # key -> value, and why ("": plain)


def choose_base(machine: Machine, num_train: int) -> tuple[str, str]:
    """The packaged configuration for this machine and number of training clips, and why."""
    if machine.gpu_gb >= LARGE_GPU_GB:
        gpu = f"a GPU of {machine.gpu_gb:.0f} GB"
        if machine.k400_weights:
            return K400, f"{gpu}, and Kinetics-400 weights are in {machine.k400_weights}"
        if machine.image_weights:
            return IMAGES, f"{gpu}, no Kinetics-400 weights, and image weights can be had"
        if num_train >= MANY_CLIPS:
            return SCRATCH, f"{gpu}, no weights can be had, and {num_train} training clips"
        return SMALL, f"no weights for a larger model can be had, and {num_train} training clips are few"
    where = f"a GPU of {machine.gpu_gb:.0f} GB, less than {LARGE_GPU_GB:.0f}" if machine.gpu_gb else "no GPU"
    return SMALL, f"{where}: a small model, started from weights in the package"


def make_settings(base: str, rows: Sequence[ManifestRow], machine: Machine, folder: str) -> Settings:
    """What `base` needs for the videos of a manifest: data, sampling, shape of frames, batch, cache.

    Args:
        base: a packaged configuration.
        rows: of the manifest, those with a split.
        machine: this one.
        folder: of the manifest.
    """
    preset = load_config(base).cfg
    splits = {row.split for row in rows}
    settings: Settings = {
        "OUTPUT_DIR": (os.path.join(folder, "run"), ""),
        "TRAIN.DATASET": ("manifest", ""),
        "TEST.DATASET": ("manifest", ""),
        "DATA.PATH_TO_DATA_DIR": (folder, ""),
    }
    if "test" not in splits:
        settings["TEST.SPLIT"] = "val", "no video is in test"
    if base == K400:
        settings["TRAIN.CHECKPOINT_FILE_PATH"] = machine.k400_weights, ""
    return (
        settings
        | _sampling(preset.DATA, rows)
        | _shape(preset.DATA, rows)
        | _batch(preset, rows)
        | _cache(preset, rows, machine)
    )


def _sampling(data: Any, rows: Sequence[ManifestRow]) -> Settings:
    """The whole video when it is short; else a span of the median length, at most `WHOLE_VIDEO_SEC`, and more views."""
    seconds = [row.duration for row in rows if row.duration] or [0.0]
    frames = [row.frames for row in rows if row.frames] or [data.NUM_FRAMES]
    short = int(np.quantile(frames, MAY_REPEAT, method="lower"))
    settings: Settings = {}
    median = float(np.median(seconds))
    if median <= WHOLE_VIDEO_SEC:
        settings["DATA.SAMPLING_RATE"] = "auto", f"a clip spans the whole video, {_range(seconds)} s"
    else:
        rate = max(1, round(WHOLE_VIDEO_SEC * data.TARGET_FPS / data.NUM_FRAMES))
        views = min(MOST_VIEWS, int(np.ceil(median / WHOLE_VIDEO_SEC)))
        why = f"a clip spans {rate * data.NUM_FRAMES / data.TARGET_FPS:.1f} s of videos of {_range(seconds)} s"
        settings["DATA.SAMPLING_RATE"] = rate, why
        settings["TEST.NUM_ENSEMBLE_VIEWS"] = views, "clips that a test spreads over a video"
    why = f"a quarter of the videos have at most {short} frames"
    if data.INPUT != "rgb" and short <= data.NUM_FRAMES * data.DIFFERENCE_FRAMES:
        settings["DATA.DIFFERENCE_FRAMES"] = max(1, (short - 1) // data.NUM_FRAMES), why
    elif data.INPUT == "rgb" and short < data.NUM_FRAMES:
        settings["DATA.NUM_FRAMES"] = max(4, 2 ** int(np.log2(max(1, short)))), why
    return settings


def _shape(data: Any, rows: Sequence[ManifestRow]) -> Settings:
    """Height and width exchanged when most videos are upright; the whole frame, as the recipes have it."""
    sizes = [tuple(map(int, row.size.split("x"))) for row in rows if row.size]
    upright = 2 * sum(width < height for width, height in sizes) > len(sizes)
    size = data.TRAIN_CROP_SIZE
    if not upright or isinstance(size, int) or size[0] >= size[1]:
        return {}
    return {f"DATA.{split}_CROP_SIZE": (size[::-1], "the videos are upright") for split in ("TRAIN", "TEST")}


def _batch(preset: Any, rows: Sequence[ManifestRow]) -> Settings:
    """The recipe's batch, or a smaller one, such that an epoch has at least `MIN_STEPS` steps."""
    num_train = sum(row.split == "train" for row in rows)
    most = 2 ** int(np.log2(max(1, num_train // MIN_STEPS)))
    if most >= preset.GLOBAL_BATCH_SIZE:
        return {}
    settings: Settings = {
        "GLOBAL_BATCH_SIZE": (most, f"{num_train} training clips: {num_train // most} steps an epoch")
    }
    if most < preset.TRAIN.BATCH_SIZE:
        settings["TRAIN.BATCH_SIZE"] = most, ""
    return settings


def _cache(preset: Any, rows: Sequence[ManifestRow], machine: Machine) -> Settings:
    """No cache of decoded frames in memory where they do not fit."""
    height, width = np.broadcast_to(preset.DATA.TRAIN_CROP_SIZE, 2) * max(preset.AUG.ZOOM)
    needed = sum(row.frames for row in rows) * height * width * 3 / 1e9
    if preset.DATA_LOADER.CACHE == "none" or needed < min(preset.DATA_LOADER.CACHE_GB, machine.cache_gb / 2):
        return {}
    return {"DATA_LOADER.CACHE": ("none", f"decoded, the frames take about {needed:.1f} GB")}


def render(base: str, why: str, settings: Mapping[str, tuple[Any, str]], rows: Sequence[ManifestRow]) -> str:
    """The text of the configuration file."""
    lines = [
        f"# {count(len(rows), 'video')} of {FILE}. Edit this file as you like: `timesformer prepare` keeps it.",
        f"# {base}: {why}.",
        f"_BASE_: {base}",
    ]
    sections = {name.rpartition(".")[0]: None for name in settings}
    for section in sections:
        lines += [f"{section}:"] if section else []
        for name, (value, comment) in settings.items():
            above, _, key = name.rpartition(".")
            if above == section:
                text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
                lines.append(f"{'  ' * bool(section)}{key}: {text}" + (f"  # {comment}" if comment else ""))
    return "\n".join(lines) + "\n"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
