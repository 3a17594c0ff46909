"""Keeps the decoded frames of small datasets in files that all processes of a machine read.

A video has one file: its facts in a first line of json, and its frames as plain uint8, read through a memory map.
The file is written under another name and then renamed: a reader sees all of it or nothing. Its name depends on the
video and the settings; a video whose size or time of change differs from the first line is decoded again.

Frames are scaled to the stored size whether the cache has them or not, so clips never depend on it. That size is
never above the frame's own: small videos are stored exactly. Larger ones are stored as the transform would scale
them, which is exact too, except for random scales: see `StoredSize`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from timesformer.datasets.cache_folders import GB
from timesformer.datasets.records import VideoRecord
from timesformer.utils.errors import VideoReadError
from timesformer.video.readers import VideoReader, resize
from timesformer.video.transforms import Size, scaled_size
from timesformer.video.video_info import VideoInfo

CHUNK_BYTES = 2**28  # of full-sized frames that are decoded at a time to be stored
MAX_MEASURED = 200  # videos opened to estimate the size of a list


@dataclass(frozen=True)
class StoredSize:
    """The size at which frames are stored: what the transform scales them to, or their own where that is smaller."""

    crop_size: Size  # of the clips
    short_side: int  # the largest that frames are scaled to before the crop (see `transforms.scaled_size`)
    whole: bool  # frames are not cropped but resized to `crop_size`
    # Every clip has this one scale. If not, larger frames are scaled twice (once to be stored, once to the scale of
    # the clip), and clips differ a little from those without a cache.
    fixed: bool

    def __call__(self, frame_size: Size) -> Size:
        """Height and width for frames of `frame_size`."""
        size = self.crop_size if self.whole else scaled_size(frame_size, self.short_side, self.crop_size)
        return size if size[0] * size[1] < frame_size[0] * frame_size[1] else frame_size

    def is_exact(self, frame_size: Size) -> bool:
        """Whether clips are the same with and without the cache."""
        return self.fixed or self(frame_size) == frame_size


class Measured(NamedTuple):
    """What storing a list of videos takes."""

    summary: str  # the number of videos and their size
    num_bytes: int  # of all frames
    stored_bytes: int  # of those that are stored already
    num_inexact: int  # of the videos that were opened, those whose clips the cache changes


class Entry(NamedTuple):
    """Facts of a video and some of its frames: uint8 (len(indices), height, width, 3), by index in the video."""

    info: VideoInfo
    indices: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class FrameCache:
    """Stored frames of the videos of one list."""

    folder: Path  # of the files
    stored_size: StoredSize
    all_frames: bool  # store every frame of a video, for random clips; otherwise those that the first clips show
    settings: str = ""  # what else decides which frames are stored and how they look
    pending_bytes: int = 0  # that shared memory is still to take

    def open(self, record: VideoRecord, open_reader: Callable[[], VideoReader]) -> VideoReader:
        """A reader of `record` that calls `open_reader` only for what is not stored yet.

        Raises:
            VideoReadError: it cannot be opened.
        """
        return _CachedReader(self, record, open_reader)

    def measure(
        self,
        records: Sequence[VideoRecord],
        open_reader: Callable[[VideoRecord], VideoReader],
        count_frames: Callable[[VideoRecord, VideoInfo], int],
    ) -> Measured:
        """What `records` take, of each as many frames as `count_frames` says; unreadable videos take nothing."""
        files = {self._file(record): record for record in records}
        videos, num_bytes, num_inexact = [*files.values()], 0, 0
        sample = np.unique(np.linspace(0, len(videos) - 1, MAX_MEASURED).astype(int)).tolist() if videos else []
        for index in sample:
            try:
                with open_reader(videos[index]) as reader:
                    size = reader.info.height, reader.info.width
                    num_bytes += count_frames(videos[index], reader.info) * 3 * math.prod(self.stored_size(size))
                    num_inexact += not self.stored_size.is_exact(size)
            except VideoReadError:
                continue  # the run will report it
        num_bytes = num_bytes * len(videos) // max(len(sample), 1)
        about = "" if len(sample) == len(videos) else f"about (by {len(sample)} of them) "
        summary = f"{len(videos)} videos, {about}{num_bytes / GB:.2f} GB"
        return Measured(summary, num_bytes, sum(file.stat().st_size for file in files if file.exists()), num_inexact)

    def load(self, record: VideoRecord) -> Entry | None:
        """What is stored of `record`; None if there is no file, or one of an older video, or half of one."""
        try:
            file = self._file(record)
            with open(file, "rb") as lines:
                facts = json.loads(lines.readline())
                start = lines.tell()
            if facts["stamp"] != _stamp(record):
                return None
            info = VideoInfo(**{**facts["info"], "warnings": tuple(facts["info"]["warnings"])})
            indices = np.arange(info.num_frames) if facts["places"] is None else np.array(facts["places"], np.int64)
            shape = len(indices), info.height, info.width, 3
            return Entry(info, indices, np.memmap(file, np.uint8, mode="r", offset=start, shape=shape))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, record: VideoRecord, info: VideoInfo, indices: np.ndarray, frames: Iterable[np.ndarray]) -> None:
        """Store `frames`, arrays (n, height, width, 3) that follow one another, of these indices of the video.

        Raises:
            OSError: they cannot be written, for example because no space is left.
        """
        # "places", and the fields of StoredSize in the file's name, are the format of caches that exist.
        facts = {"stamp": _stamp(record), "info": asdict(info), "places": None if self.all_frames else indices.tolist()}
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".writing")
        try:
            with open(handle, "wb") as file:
                file.write(json.dumps(facts).encode() + b"\n")
                for chunk in frames:
                    file.write(np.ascontiguousarray(chunk).data)
            os.replace(name, self._file(record))
        except BaseException:
            os.unlink(name)
            raise

    def _file(self, record: VideoRecord) -> Path:
        part = () if self.all_frames else (record.start_sec, record.end_sec)
        key = (os.path.abspath(record.path), record.fps, *part, self.stored_size, self.all_frames, self.settings)
        return self.folder / f"{hashlib.sha256(repr(key).encode(errors='surrogateescape')).hexdigest()[:32]}.frames"


class _CachedReader:
    """A video of which frames are stored; see `readers.VideoReader`."""

    def __init__(self, cache: FrameCache, record: VideoRecord, open_reader: Callable[[], VideoReader]) -> None:
        self._cache, self._record, self._open_reader = cache, record, open_reader
        self._reader: VideoReader | None = None
        self._entry = cache.load(record)
        if self._entry:
            self.info = self._entry.info
        else:
            info = self._decoder().info
            height, width = cache.stored_size((info.height, info.width))
            self.info = replace(info, height=height, width=width)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader`."""
        requested = np.asarray(indices, np.int64)
        if self._entry is None or not np.isin(requested, self._entry.indices).all():
            self._entry = self._decode(requested)
        return np.asarray(self._entry.frames[np.searchsorted(self._entry.indices, requested)])

    def close(self) -> None:
        """Close the video."""
        if self._reader:
            self._reader.close()

    def __enter__(self) -> _CachedReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _decoder(self) -> VideoReader:
        """The reader of the video itself, opened when it is first needed."""
        self._reader = self._reader or self._open_reader()
        return self._reader

    def _decode(self, requested: np.ndarray) -> Entry:
        """Decode and store the requested frames, or all; where that fails, only return the requested ones.

        Raises:
            VideoReadError: a requested frame cannot be decoded.
        """
        reader, size = self._decoder(), (self.info.height, self.info.width)
        indices = np.arange(self.info.num_frames) if self._cache.all_frames else np.unique(requested)
        at_once = max(1, CHUNK_BYTES // (3 * reader.info.height * reader.info.width))
        chunks = (indices[start : start + at_once] for start in range(0, len(indices), at_once))
        try:
            self._cache.store(self._record, self.info, indices, (resize(reader.read(chunk), size) for chunk in chunks))
            entry = self._cache.load(self._record)
        except (VideoReadError, OSError):  # damaged at other frames, or no space left: nothing is stored
            entry = None
        indices = np.unique(requested)
        return entry or Entry(self.info, indices, resize(reader.read(indices), size))


def _stamp(record: VideoRecord) -> str:
    """A hash of size and time of change of the video's file or of each of its pictures."""
    status = [os.stat(file) for file in record.frames or (record.path,)]
    return hashlib.sha256(repr([(each.st_size, each.st_mtime_ns) for each in status]).encode()).hexdigest()[:16]
