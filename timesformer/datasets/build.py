"""From the configuration to lists of videos, loaders and the mixer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode

from timesformer.config.check import check_config

# Importing a dataset registers it.
from timesformer.datasets import folder, howto100m, kinetics, manifest, muwiges, ssv2  # noqa: F401
from timesformer.datasets.balance import AUTO_ABOVE, class_weights, imbalance
from timesformer.datasets.cache import StoredSize
from timesformer.datasets.cache_folders import check_shared_memory
from timesformer.datasets.caching import build_cache
from timesformer.datasets.gestures import dataset as gestures  # noqa: F401
from timesformer.datasets.gestures import wide  # noqa: F401
from timesformer.datasets.guarded import START_LIMIT_SEC
from timesformer.datasets.loader import EvalLoader, TrainLoader, shared_memory_needed
from timesformer.datasets.mirror import flip_label_map
from timesformer.datasets.mixing import ClipMixer
from timesformer.datasets.near_misses import near_miss
from timesformer.datasets.overlaps import overlaps
from timesformer.datasets.records import VideoList, class_counts, missing_table, split_missing
from timesformer.datasets.video_dataset import MAX_REPLACEMENTS, VideoDataset
from timesformer.distributed.stop import StopRequest
from timesformer.utils.console import count
from timesformer.utils.env import available_cpus, processes_that_share_cpus
from timesformer.utils.errors import ConfigError, DataListError
from timesformer.utils.logging import get_logger
from timesformer.utils.registry import DATASETS
from timesformer.video.augment import Appearance, Geometry
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.frame_samplers import Timing
from timesformer.video.readers import resolve_backend

log = get_logger(__name__)

MAX_AUTO_WORKERS = 8  # when training on the CPU
MAX_AUTO_WORKERS_OF_A_GPU = 32
MAX_AUTO_CLIPS, MAX_AUTO_BYTES = 16, 2**27  # of a forward pass with TRAIN.BATCH_SIZE auto, on a CPU and elsewhere


def load_list(cfg: CfgNode, split: str, *, testing: bool = False) -> VideoList:
    """The videos of a split; files that do not exist are reported in one table, as a warning.

    A training list loses its missing files. In validation and test they stay, fail when read, and count as
    missing in the result.

    Args:
        cfg: the configuration.
        split: "train", "val" or "test".
        testing: the list is of TEST.DATASET and to be scored, whatever the split; always so for "test".

    Raises:
        DataListError: the list has problems, or too many of its files are missing.
        ConfigError: see `find_num_classes`.
    """
    find_num_classes(cfg)
    testing = testing or split == "test"
    videos: VideoList = DATASETS.get(cfg.TEST.DATASET if testing else cfg.TRAIN.DATASET).from_config(cfg, split).load()
    present, missing = split_missing(videos.records)
    if not missing:
        return videos
    training = split == "train" and not testing
    count = f"{len(missing)} of the {len(videos.records)} videos of the {split} list do not exist"
    remedy = near_miss([record.path for record in missing], [cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX])
    message = f"{count}:\n{missing_table(missing, remedy)}"
    limit = cfg.DATA.MAX_FAILED_FRACTION
    if not present or (training and len(missing) > limit * len(videos.records)):
        advice = f"\nThat is more than DATA.MAX_FAILED_FRACTION {limit:g} allows." if present else ""
        raise DataListError(message + advice)
    return replace(videos, records=present if training else videos.records, warnings=[*videos.warnings, message])


def find_num_classes(cfg: CfgNode) -> None:
    """Put the number of classes for MODEL.NUM_CLASSES auto, for all that follows and for what is saved.

    It is the number of class names, without them the largest label of the list that is trained on (or tested) plus one.

    Raises:
        DataListError: the list has problems.
        ConfigError: the number contradicts another setting.
    """
    if cfg.MODEL.NUM_CLASSES != "auto":
        return
    name, split = (cfg.TRAIN.DATASET, "train") if cfg.TRAIN.ENABLE else (cfg.TEST.DATASET, cfg.TEST.SPLIT)
    videos: VideoList = DATASETS.get(name).from_config(cfg, split).load()
    cfg.defrost()
    cfg.MODEL.NUM_CLASSES = len(videos.class_names) or 1 + max(class_counts(videos.records), default=0)
    cfg.freeze()
    if problems := check_config(cfg):
        raise ConfigError("\n".join(problems))


def load_lists(cfg: CfgNode) -> dict[str, VideoList]:
    """Every list the run needs, so that a problem in one is reported before anything starts.

    Returns:
        "train" and "val" when `TRAIN.ENABLE`, "test" (the list that `TEST.SPLIT` names) when `TEST.ENABLE`.

    Raises:
        DataListError: as `load_list`.
        ConfigError: see `find_num_classes`, or DATA.FLIP_LABEL_MAP names a class that is none.
    """
    lists = {split: load_list(cfg, split) for split in ("train", "val") if cfg.TRAIN.ENABLE}
    if cfg.TRAIN.ENABLE:
        flip_label_map(cfg.DATA.FLIP_LABEL_MAP, lists["train"].class_names)
    if cfg.TEST.ENABLE:
        lists["test"] = load_list(cfg, cfg.TEST.SPLIT, testing=True)
    same = ["test", cfg.TEST.SPLIT] if cfg.TEST.DATASET == cfg.TRAIN.DATASET else []
    next(iter(lists.values())).warnings.extend(overlap.text for overlap in overlaps(lists, same))
    return lists


def build_train_dataset(cfg: CfgNode, videos: VideoList) -> VideoDataset:
    """Random clips of `videos`."""
    data, spec = cfg.DATA, ClipSpec.from_config(cfg, training=True)
    cropped = spec.crop_mode == "crop"
    low, high = data.TRAIN_JITTER_SCALES if cropped else (1, 1)  # unused, and so not read
    aug = cfg.AUG
    geometry = Geometry(shift=aug.SHIFT, zoom=tuple(aug.ZOOM), rotation=aug.ROTATION, perspective=aug.PERSPECTIVE)
    appearance = Appearance(
        gamma=aug.GAMMA,
        gray_prob=aug.GRAY_PROB,
        blur=aug.BLUR,
        noise=aug.NOISE,
        jpeg_quality=aug.JPEG_QUALITY,
    )
    augmentation = {
        "geometry": geometry,
        "appearance": appearance,
        "jitter_scales": (low, high),
        "inverse_uniform": cropped and data.INV_UNIFORM_SAMPLE,
        "flip": data.RANDOM_FLIP,
        "auto_augment": data.AUTO_AUGMENT,
        "color_jitter": data.COLOR_JITTER,
        "erase_prob": data.RE_PROB,
    }
    # Frames are stored such that the largest zoom still finds the pixels it shows.
    zoom = max(geometry.zoom)
    stored_size = StoredSize(
        tuple(math.ceil(side * zoom) for side in spec.size),  # type: ignore[arg-type]
        math.ceil(high * zoom),
        whole=not cropped,
        fixed=not geometry and (not cropped or low == high),
    )
    return VideoDataset(
        videos.records,
        spec=spec,
        training=True,
        augmentation=augmentation,
        timing=Timing(trim=aug.TRIM, speed=aug.SPEED),
        flip_label_map=flip_label_map(data.FLIP_LABEL_MAP, videos.class_names),
        flip_only_mapped=data.RANDOM_FLIP and data.FLIP_ONLY_MAPPED,
        cache=build_cache(cfg, videos, spec, stored_size, views=None, repeated=cfg.SOLVER.MAX_EPOCH > 1),
        **_reading_settings(cfg),
    )


def build_eval_dataset(
    cfg: CfgNode, videos: VideoList, *, views: Views, cached: bool = True, repeated: bool = False
) -> VideoDataset:
    """Fixed clips of `videos`; `cached`: as DATA_LOADER.CACHE asks for, which is not for a list that is read once."""
    spec = ClipSpec.from_config(cfg)
    whole = spec.crop_mode != "crop"
    short_side = spec.short_side if views.num_crops == 1 else 0
    stored_size = StoredSize(spec.size, short_side, whole=whole, fixed=True)
    return VideoDataset(
        videos.records,
        spec=spec,
        views=views,
        cache=build_cache(cfg, videos, spec, stored_size, views=views, repeated=repeated) if cached else None,
        **_reading_settings(cfg),
    )


def build_train_loader(
    cfg: CfgNode,
    videos: VideoList,
    *,
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int = 1,
    num_threads: int | None = None,
    stop: StopRequest | None = None,
) -> TrainLoader:
    """Training batches: GLOBAL_BATCH_SIZE clips a step in pieces of TRAIN.BATCH_SIZE per node.

    Args:
        cfg: the configuration.
        videos: the list to train on.
        rank, world_size: this process and how many there are.
        local_world_size: how many of them share this node's piece and CPUs.
        num_threads: CPU threads of a step; None: all of this process's share.
        stop: the signal that ends a wait for clips.

    Raises:
        ConfigError: the batches do not fit into shared memory.
    """
    dataset = build_train_dataset(cfg, videos)
    micro_batch = clips_per_pass(cfg, math.prod(dataset.spec.input_shape), world_size, local_world_size)
    balanced = balance(cfg, videos) == "sampling"
    labels = np.array([record.label for record in videos.records]) if balanced else None
    return TrainLoader(
        dataset,
        global_batch=cfg.GLOBAL_BATCH_SIZE,
        micro_batch=micro_batch,
        pairs=cfg.MIXUP.ENABLED,
        rank=rank,
        world_size=world_size,
        seed=cfg.RNG_SEED,
        repeats=cfg.TRAIN.REPEATED_AUG,
        labels=labels,
        **_loader_settings(cfg, dataset, micro_batch, micro_batch, local_world_size, stop, num_threads),
    )


def balance(cfg: CfgNode, videos: VideoList) -> str:
    """What TRAIN.BALANCE means for a training list: "none", "sampling" or "weights"."""
    setting: str = cfg.TRAIN.BALANCE
    if setting != "auto":
        return setting
    return "sampling" if not cfg.DATA.MULTI_LABEL and imbalance(videos.records) > AUTO_ABOVE else "none"


def loss_weights(cfg: CfgNode, videos: VideoList) -> list[float] | None:
    """The weight of each class in the training loss; None when all have the same."""
    return class_weights(videos.records, cfg.MODEL.NUM_CLASSES) if balance(cfg, videos) == "weights" else None


def clips_per_pass(cfg: CfgNode, clip_bytes: int, world_size: int, local_world_size: int) -> int:
    """The most clips of a forward pass of each process, if the memory suffices.

    "auto" is the share of a process in the global batch: at most 16 clips on a CPU, which larger batches make no
    faster, and 128 MiB elsewhere.
    """
    if cfg.TRAIN.BATCH_SIZE != "auto":
        return max(1, cfg.TRAIN.BATCH_SIZE // local_world_size)
    most = MAX_AUTO_BYTES // clip_bytes if _on_gpu(cfg) else MAX_AUTO_CLIPS
    return max(2 if cfg.MIXUP.ENABLED else 1, min(math.ceil(cfg.GLOBAL_BATCH_SIZE / world_size), most))


def build_eval_loader(
    cfg: CfgNode,
    videos: VideoList,
    *,
    views: Views,
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int = 1,
    stop: StopRequest | None = None,
    cached: bool = True,
    repeated: bool = False,
) -> EvalLoader:
    """Every video once, with its `views`; for the other arguments see `build_train_loader`, `build_eval_dataset`."""
    per_process, per_video = cfg.TEST.BATCH_SIZE // local_world_size, views.num_crops
    if views.num_clips != "auto":
        per_video *= views.num_clips
    dataset = build_eval_dataset(cfg, videos, views=views, cached=cached, repeated=repeated)
    videos_per_batch = 1 if views.num_clips == "auto" else max(1, per_process // per_video)
    clips = videos_per_batch * per_video
    return EvalLoader(
        dataset,
        videos_per_batch=videos_per_batch,
        rank=rank,
        world_size=world_size,
        **_loader_settings(cfg, dataset, videos_per_batch, clips, local_world_size, stop),
    )


def build_plain_loader(cfg: CfgNode, videos: VideoList, *, spec: ClipSpec) -> EvalLoader:
    """Every video once, in this process: one clip of a `spec` that is not the model's."""
    dataset = VideoDataset(videos.records, spec=spec, **_reading_settings(cfg))
    return EvalLoader(dataset, videos_per_batch=8, **_worker_settings(cfg, 1))


def build_mixer(cfg: CfgNode) -> ClipMixer | None:
    """Mixup and CutMix, or None when MIXUP.ENABLED is off."""
    if not cfg.MIXUP.ENABLED:
        return None
    return ClipMixer(
        num_classes=cfg.MODEL.NUM_CLASSES,
        mixup_alpha=cfg.MIXUP.ALPHA,
        cutmix_alpha=cfg.MIXUP.CUTMIX_ALPHA,
        prob=cfg.MIXUP.PROB,
        switch_prob=cfg.MIXUP.SWITCH_PROB,
        seed=cfg.RNG_SEED,
    )


def num_workers(setting: int | str, local_processes: int, *, on_gpu: bool, num_threads: int | None = None) -> int:
    """Loader processes per training process.

    "auto" is the process's share of the usable CPUs but one, at most 32; on a CPU a quarter of the share, at most 8,
    since the model computes on the same cores, but at least one where its `num_threads` leave a core.
    """
    if setting != "auto":
        return int(setting)
    share = available_cpus() // local_processes
    if on_gpu:
        return min(MAX_AUTO_WORKERS_OF_A_GPU, share if share < 2 else share - 1)
    spare = 0 if num_threads is None else share - num_threads
    return min(MAX_AUTO_WORKERS, max(share // 4, min(spare, 1)))


def _on_gpu(cfg: CfgNode) -> bool:
    return cfg.NUM_GPUS != 0 and torch.accelerator.is_available()


def _worker_settings(cfg: CfgNode, local_world_size: int, num_threads: int | None = None) -> dict[str, Any]:
    local_processes = processes_that_share_cpus(local_world_size)
    on_gpu = _on_gpu(cfg)
    workers = num_workers(cfg.DATA_LOADER.NUM_WORKERS, local_processes, on_gpu=on_gpu, num_threads=num_threads)
    return {"num_workers": workers, "pin_memory": cfg.DATA_LOADER.PIN_MEMORY and on_gpu}


def _loader_settings(
    cfg: CfgNode,
    dataset: VideoDataset,
    videos: int,
    clips: int,
    local_world_size: int,
    stop: StopRequest | None,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Settings of a loader whose batches have so many `videos` and `clips`, whose memory is checked."""
    settings = _worker_settings(cfg, local_world_size, num_threads)
    workers = min(settings["num_workers"], math.ceil(len(dataset) / videos))
    needed = local_world_size * shared_memory_needed(workers, clips * math.prod(dataset.spec.input_shape))
    pending = dataset.cache.pending_bytes if dataset.cache else 0
    what = f"{workers} loader processes x {count(clips, 'clip')}"
    try:
        check_shared_memory(needed, pending, what)
    except ConfigError:
        if cfg.DATA_LOADER.CACHE != "auto":
            raise
        check_shared_memory(needed, 0, what)
        dataset.cache = None
        log.info("DATA_LOADER.CACHE auto is none after all: the batches need the shared memory")
    # A video is tried, and each replacement; the first batch also waits for the start of the processes.
    limit_sec = dataset.timeout_sec * (1 + MAX_REPLACEMENTS) * videos
    return settings | {"stop": stop, "limit_sec": limit_sec + START_LIMIT_SEC if limit_sec else 0.0}


def _reading_settings(cfg: CfgNode) -> dict[str, Any]:
    return {
        "seed": cfg.RNG_SEED,
        "backend": resolve_backend(cfg.DATA.DECODING_BACKEND),
        "timeout_sec": cfg.DATA_LOADER.TIMEOUT,
        "recycle_after": cfg.DATA_LOADER.RECYCLE_AFTER,
    }
