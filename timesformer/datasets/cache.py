"""Keeps the decoded frames of small datasets in files that all processes of a machine read.

A video has one file: its facts, and its frames as plain uint8, read through a memory map. The file is written
beside its place and then moved there, so that a reader sees it whole or not at all, and two processes that miss
the same video at once do no harm. Its name says which video and which settings; its first line says the size and
time of change of the video, and a video that has changed is decoded anew.

What a clip looks like never depends on whether the cache has it: frames are brought to the stored size on every
way. That size is never above the frame's own, so small videos are stored as they are, exactly. Larger ones are
stored as the transform would scale them, which is exact too, but for random scales: see `StoredSize`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from timesformer.datasets.cache_folders import GB
from timesformer.datasets.records import VideoRecord
from timesformer.utils.errors import VideoReadError
from timesformer.video.readers import VideoReader, resize
from timesformer.video.transforms import Size, scaled_size
from timesformer.video.video_info import VideoInfo

CHUNK_BYTES = 2**28  # of full-sized frames that are decoded at a time to be stored
MAX_MEASURED = 200  # videos opened to tell the size of a list


@dataclass(frozen=True)
class StoredSize:
    """The size at which frames are stored: what the transform scales them to, or their own where that is smaller.

    Attributes:
        crop_size: height and width of the clips.
        short_side: the largest that frames are scaled to before the crop (see `transforms.scaled_size`).
        whole: frames are not cropped but resized to `crop_size`.
        fixed: every clip sees this one scale. If not, larger frames are scaled twice (once to be stored, once
            to the scale of the clip), and clips differ a little from those without a cache.
    """

    crop_size: Size
    short_side: int
    whole: bool
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

    told: str  # the number of videos and what they take
    num_bytes: int  # of all frames
    stored_bytes: int  # of those that are stored already
    num_inexact: int  # of the videos that were opened to tell the size, those whose clips the cache changes


@dataclass(frozen=True)
class FrameCache:
    """Stored frames of the videos of one list.

    Attributes:
        folder: of the files.
        stored_size: see `StoredSize`.
        all_frames: store every frame of a video, for random clips; otherwise the ones that the first clips show.
        settings: what else decides which frames are stored and how they look, as text.
    """

    folder: Path
    stored_size: StoredSize
    all_frames: bool
    settings: str = ""

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
        videos = {self._file(record): record for record in records}
        chosen = [*videos.values()]
        picks: Sequence[int] = (
            np.unique(np.linspace(0, len(chosen) - 1, MAX_MEASURED).astype(int)).tolist() if chosen else []
        )
        num_bytes = num_inexact = 0
        for pick in picks:
            try:
                with open_reader(chosen[pick]) as reader:
                    size = reader.info.height, reader.info.width
                    num_bytes += count_frames(chosen[pick], reader.info) * 3 * math.prod(self.stored_size(size))
                    num_inexact += not self.stored_size.is_exact(size)
            except VideoReadError:
                continue  # the run will name it
        num_bytes = num_bytes * len(chosen) // max(len(picks), 1)
        about = "" if len(picks) == len(chosen) else f"about (by {len(picks)} of them) "
        told = f"{len(chosen)} videos, {about}{num_bytes / GB:.2f} GB"
        return Measured(told, num_bytes, sum(file.stat().st_size for file in videos if file.exists()), num_inexact)

    def load(self, record: VideoRecord) -> _Entry | None:
        """What is stored of `record`; None if that is nothing, of an older file or half of a file."""
        try:
            file = self._file(record)
            with open(file, "rb") as lines:
                told = json.loads(lines.readline())
                start = lines.tell()
            if told.pop("stamp") != _stamp(record):
                return None
            info = VideoInfo(**{**told["info"], "warnings": tuple(told["info"]["warnings"])})
            places = np.array(told["places"], np.int64) if told["places"] is not None else np.arange(info.num_frames)
            shape = len(places), info.height, info.width, 3
            return _Entry(info, places, np.memmap(file, np.uint8, mode="r", offset=start, shape=shape))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, record: VideoRecord, info: VideoInfo, places: np.ndarray, frames: Any) -> None:
        """Store `frames`, arrays (n, height, width, 3) one after the other, of the given places of the video.

        Raises:
            OSError: they cannot be written (no space left, say).
        """
        stored_places = None if self.all_frames else places.tolist()
        told = {"stamp": _stamp(record), "info": asdict(info), "places": stored_places}
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".writing")
        try:
            with open(handle, "wb") as file:
                file.write(json.dumps(told).encode() + b"\n")
                for chunk in frames:
                    file.write(np.ascontiguousarray(chunk).data)
            os.replace(name, self._file(record))
        except BaseException:
            os.unlink(name)
            raise

    def _file(self, record: VideoRecord) -> Path:
        parts = () if self.all_frames else (record.start_sec, record.end_sec)
        what = (os.path.abspath(record.path), record.fps, *parts, self.stored_size, self.all_frames, self.settings)
        return self.folder / f"{hashlib.sha256(repr(what).encode(errors='surrogateescape')).hexdigest()[:32]}.frames"


@dataclass(frozen=True)
class _Entry:
    """Facts of a video, and its stored frames: (len(places), height, width, 3) uint8 by place in display order."""

    info: VideoInfo
    places: np.ndarray
    frames: np.ndarray


class _CachedReader:
    """A video of which frames are stored; see `readers.VideoReader`."""

    def __init__(self, cache: FrameCache, record: VideoRecord, open_reader: Callable[[], VideoReader]) -> None:
        self._cache, self._record, self._open_reader = cache, record, open_reader
        self._reader: VideoReader | None = None
        self._entry = cache.load(record)
        self.info = self._entry.info if self._entry else self._stored_info(self._decoder().info)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader`."""
        wanted = np.asarray(indices, np.int64)
        if self._entry is None or not np.isin(wanted, self._entry.places).all():
            self._entry = self._decode(wanted)
        return np.asarray(self._entry.frames[np.searchsorted(self._entry.places, wanted)])

    def close(self) -> None:
        """Lets go of the file."""
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

    def _stored_info(self, info: VideoInfo) -> VideoInfo:
        height, width = self._cache.stored_size((info.height, info.width))
        return replace(info, height=height, width=width)

    def _decode(self, wanted: np.ndarray) -> _Entry:
        """Decodes and stores the wanted frames, or all; only gives the wanted ones where that fails.

        Raises:
            VideoReadError: a wanted frame cannot be decoded.
        """
        reader, size = self._decoder(), (self.info.height, self.info.width)
        places = np.arange(self.info.num_frames) if self._cache.all_frames else np.unique(wanted)
        at_once = max(1, CHUNK_BYTES // (3 * reader.info.height * reader.info.width))
        chunks = (places[start : start + at_once] for start in range(0, len(places), at_once))
        try:
            self._cache.store(self._record, self.info, places, (resize(reader.read(chunk), size) for chunk in chunks))
        except (VideoReadError, OSError):  # damaged where nothing is wanted, or no space left: nothing is stored
            stored = None
        else:
            stored = self._cache.load(self._record)
        if stored is not None:
            return stored
        places = np.unique(wanted)
        return _Entry(self.info, places, resize(reader.read(places), size))


def _stamp(record: VideoRecord) -> str:
    """What changes when the video does: the size and time of change of its file or of each of its pictures."""
    status = [os.stat(file) for file in record.frames or (record.path,)]
    return hashlib.sha256(repr([(each.st_size, each.st_mtime_ns) for each in status]).encode()).hexdigest()[:16]
