"""Measures videos for the manifest: duration, rate, frames, size, and a hash of the content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from timesformer.datasets.opening import open_record
from timesformer.datasets.records import VideoRecord
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import VideoReadError


class Facts(NamedTuple):
    """What the columns of a manifest say of one video."""

    duration: float  # seconds
    fps: float
    frames: int
    size: str  # WIDTHxHEIGHT
    hash: str  # see `content_digest`


def measure(records: Sequence[VideoRecord], *, show_progress: bool) -> list[Facts | str]:
    """The facts of each video, or in words why it cannot be read."""
    with ThreadPoolExecutor(max(1, min(8, available_cpus()))) as pool:
        bar = tqdm(pool.map(_facts, records), "videos", len(records), disable=not (show_progress and records))
        return [*bar]


def _facts(record: VideoRecord) -> Facts | str:
    try:
        with open_record(record, backend="pyav") as reader:
            info = reader.info
        digest = content_digest(record)
    except VideoReadError as error:
        return error.cause
    except OSError as error:
        return error.strerror or str(error)
    seconds, fps = round(info.duration_sec, 3), round(info.fps, 3)
    return Facts(seconds, fps, info.num_frames, f"{info.width}x{info.height}", digest)


def content_digest(record: VideoRecord) -> str:
    """The first 16 digits of the sha256 of the file, or of all pictures in order."""
    digest = hashlib.sha256()
    for path in record.frames or [record.path]:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
