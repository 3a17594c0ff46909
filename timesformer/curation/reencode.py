"""Copies of videos with a smaller short side, written in parallel; what is there already is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from timesformer.datasets.files import is_video
from timesformer.datasets.opening import open_record
from timesformer.datasets.records import VideoRecord
from timesformer.distributed.stop import end_with_parent
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.video.encode import can_encode, write
from timesformer.video.readers import VideoReader, resize

CHUNK = 32  # frames in memory at a time
QUALITY = 18  # constant rate factor of H.264: hardly visible losses


def copy_name(name: str) -> str:
    """The name of the copy of a video or frame folder, by its own below the folder; no two have the same."""
    name = name.lstrip("/").replace(":", "")
    if name.lower().endswith(".mp4"):
        return name
    return f"{name}.mp4" if is_video(name) else f"{name}.frames.mp4"


def reencode(
    records: Sequence[VideoRecord], targets: Sequence[str], *, short_side: int, processes: int, show_progress: bool
) -> dict[str, str]:
    """Write a copy of each video; one that exists is kept, for each is written as a whole or not at all.

    Frames keep their number and the average rate; sound is dropped. Videos are never enlarged.

    Returns:
        by target, for videos that cannot be read: what is wrong.

    Raises:
        UserError: there is no encoder for H.264.
    """
    if not can_encode():
        raise UserError(
            "--short-side writes H.264, which this FFmpeg does not have. Leave it out: videos stay as they are"
        )
    jobs = [
        (record, target, short_side)
        for record, target in zip(records, targets, strict=True)
        if not os.path.exists(target)
    ]
    failures: dict[str, str] = {}
    with tqdm(total=len(jobs), desc="copies", disable=not (show_progress and jobs)) as bar:
        for target, problem in _results(jobs, min(processes, len(jobs))):
            failures |= {target: problem} if problem else {}
            bar.update()
    return failures


def _results(jobs: Iterable[tuple[VideoRecord, str, int]], processes: int) -> Iterator[tuple[str, str]]:
    if processes < 2:
        yield from map(_copy, jobs)
        return
    spawn = get_context("spawn")  # forking a process that runs threads can hang
    with ProcessPoolExecutor(processes, spawn, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
        try:
            yield from pool.map(_copy, jobs, chunksize=4)
        except BaseException:  # Ctrl-C, a full disk: leaving the block would wait for all the others
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _copy(job: tuple[VideoRecord, str, int]) -> tuple[str, str]:
    record, target, short_side = job
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open_record(record, backend="pyav") as reader, partial.open("wb") as file:
            height, width = reader.info.height, reader.info.width
            factor = min(1.0, short_side / min(height, width))
            size = tuple(max(2, 2 * round(side * factor / 2)) for side in (height, width))
            write(file, _frames(reader, size), reader.info.fps, size=size, quality=QUALITY)
        partial.replace(path)
    except VideoReadError as error:
        return target, error.cause
    finally:
        partial.unlink(missing_ok=True)
    return target, ""


def _frames(reader: VideoReader, size: tuple[int, ...]) -> Iterator[np.ndarray]:
    for start in range(0, reader.info.num_frames, CHUNK):
        yield from resize(reader.read(range(start, min(start + CHUNK, reader.info.num_frames))), size)  # type: ignore[arg-type]
