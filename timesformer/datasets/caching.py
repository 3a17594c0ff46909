"""From the configuration to the cache of a list's frames."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from fvcore.common.config import CfgNode

from timesformer.datasets.cache import MAX_MEASURED, OWN_SIZE, FrameCache, StoredSize
from timesformer.datasets.cache_folders import (
    GB,
    SHARED_MEMORY,
    check_space,
    disk_folder,
    free_shared_memory,
    memory_folder,
    remove_abandoned,
)
from timesformer.datasets.opening import open_record, sample_record
from timesformer.datasets.records import VideoList, VideoRecord, in_memory
from timesformer.utils.errors import ConfigError
from timesformer.utils.logging import get_logger
from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.readers import resolve_backend
from timesformer.video.video_info import VideoInfo

log = get_logger(__name__)

AUTO_SHARE = 0.25  # of the free memory, that DATA_LOADER.CACHE auto gives to the frames of one list
AUTO_OPENED = 32  # of its videos are opened to estimate them


def build_cache(
    cfg: CfgNode,
    videos: VideoList,
    spec: ClipSpec,
    stored_size: StoredSize,
    *,
    views: Views | None,
    repeated: bool,
) -> FrameCache | None:
    """The cache that DATA_LOADER.CACHE asks for; logs first how much it takes.

    Args:
        cfg: the configuration.
        videos: whose frames are stored.
        spec: of the clips.
        stored_size: of the frames.
        views: whose frames are stored; None: all frames, for random clips.
        repeated: the run reads the list more than once; for one that it reads once, auto means none.

    Raises:
        ConfigError: without auto, it takes more than DATA_LOADER.CACHE_GB, or more than there is.
    """
    loader, kind = cfg.DATA_LOADER, cfg.DATA_LOADER.CACHE
    auto = kind == "auto"
    if kind == "none" or (auto and not (repeated and free_shared_memory())):
        return None
    records = [record for record in videos.records if not in_memory(record)]
    if not records:
        log.info("DATA_LOADER.CACHE %s is not used: no video of this list is a file", kind)
        return None
    if auto:
        try:
            remove_abandoned()  # what killed runs have left there may be what leaves no room
        except ConfigError:
            return None
        stored_in, stored_size = SHARED_MEMORY, stored_size if stored_size.fixed else OWN_SIZE  # results stay the same
    else:
        stored_in = memory_folder(cfg.OUTPUT_DIR) if kind == "memory" else disk_folder(loader.CACHE_DIR)
    sampler = spec.frame_sampler(num_clips=views.num_clips) if views else None
    # all frames are the same whatever the sampler; those of a test are not
    settings = "" if sampler is None else f"{sampler} {cfg.RNG_SEED}"
    cache = FrameCache(stored_in, stored_size, sampler is None, settings=settings)

    def count_frames(record: VideoRecord, info: VideoInfo) -> int:
        if sampler is None:
            return info.num_frames
        return len(np.unique(sample_record(record, info, sampler, numpy_generator(0))))

    opened = partial(open_record, backend=resolve_backend(cfg.DATA.DECODING_BACKEND))
    most = AUTO_OPENED if auto else MAX_MEASURED
    size, num_bytes, stored_bytes, num_inexact = cache.measure(records, opened, count_frames, most)
    if auto:
        limit = min(loader.CACHE_GB * GB, AUTO_SHARE * free_shared_memory())
        fits = 0 < num_bytes <= limit
        choice, allowed = "memory" if fits else "none", f"{limit / GB:.2f} GB may be used"
        log.info("DATA_LOADER.CACHE auto is %s: %s of frames, and %s", choice, size, allowed)
        return replace(cache, folder=memory_folder(cfg.OUTPUT_DIR), pending_bytes=num_bytes) if fits else None
    message = f"DATA_LOADER.CACHE {kind}: {size} of frames in {stored_in}"
    check_space(stored_in, message, num_bytes, stored_bytes, limit_gb=loader.CACHE_GB)
    cache = replace(cache, pending_bytes=max(0, num_bytes - stored_bytes) if kind == "memory" else 0)
    log.info("%s, %.2f GB of them stored already", message, stored_bytes / GB)
    if num_inexact:
        log.info(
            "%d of the videos that were opened are larger than the largest scale of a clip (%s): they are stored at "
            "that size and clips are scaled from it, which is not exactly what they are without a cache",
            *(num_inexact, "AUG.ZOOM" if stored_size.whole else "DATA.TRAIN_JITTER_SCALES, AUG.ZOOM"),
        )
    return cache
