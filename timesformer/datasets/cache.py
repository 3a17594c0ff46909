"""Keeps the decoded frames of small datasets in files that all processes of a machine read.

A video has one file: its frames as plain uint8, read through a memory map, then a line of json with its facts and the
checksum of each frame, then the length and the checksum of that line. The file is written under another name, put on
the disk and then renamed: a reader sees all of it or nothing. Its name depends on the video and the settings; a video
whose size or time of change differs from the facts is decoded again, and so, with a warning, is one of a damaged file.

Frames are scaled to the stored size whether the cache has them or not, so clips never depend on it. That size is
never above the frame's own: small videos are stored exactly. Larger ones are stored as the transform would scale
them, which is exact too, except for random scales: see `StoredSize`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
import zlib
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
DAMAGED = "the file of its cached frames was damaged ({}); the video was decoded again"
_END = struct.Struct("<II8s")  # length and checksum of the facts, and what every file ends with
_MAGIC = b"frames02"
_OLD_START = b'{"stamp"'  # of the files of an earlier version, which had no checksums
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


OWN_SIZE = StoredSize((1, 1), 10**6, whole=False, fixed=True)  # that of the frames


class Measured(NamedTuple):
    """What storing a list of videos takes."""

    summary: str  # the number of videos and their size
    num_bytes: int  # of all frames
    stored_bytes: int  # of those that are stored already
    num_inexact: int  # of the videos that were opened, those whose clips the cache changes


class DamagedEntryError(Exception):
    """A file of frames is not as it was written."""


class Entry(NamedTuple):
    """Facts of a video and some of its frames: uint8 (len(indices), height, width, 3), by index in the video."""

    info: VideoInfo
    indices: np.ndarray
    frames: np.ndarray
    checksums: Sequence[int] = ()  # of each frame; none for frames that come from a decoder

    def get(self, indices: np.ndarray) -> np.ndarray:
        """The frames of these indices of the video.

        Raises:
            DamagedEntryError: one is not as it was stored.
        """
        rows = np.searchsorted(self.indices, indices)
        if self.checksums and any(zlib.crc32(self.frames[row]) != self.checksums[row] for row in set(rows.tolist())):
            raise DamagedEntryError("wrong checksum")
        return np.asarray(self.frames[rows])


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
        max_opened: int = MAX_MEASURED,
    ) -> Measured:
        """What `records` take, of each as many frames as `count_frames` says; unreadable videos take nothing."""
        files = {self._file(record): record for record in records}
        videos, num_bytes, num_inexact = [*files.values()], 0, 0
        sample = np.unique(np.linspace(0, len(videos) - 1, max_opened).astype(int)).tolist() if videos else []
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
        """What is stored of `record`; None if there is no file, or one of an older video.

        Raises:
            DamagedEntryError: the file is not as it was written.
        """
        path = self._file(record)
        try:
            with open(path, "rb") as file:
                is_old = file.read(len(_OLD_START)) == _OLD_START
                end = file.seek(0, os.SEEK_END)
                file.seek(max(end - _END.size, 0))
                length, checksum, magic = _END.unpack(file.read())
                file.seek(end - _END.size - length)
                text = file.read(length)
        except (OSError, ValueError, struct.error) as error:
            if isinstance(error, FileNotFoundError) or is_old:
                return None
            raise DamagedEntryError(str(error)) from error
        if magic != _MAGIC or zlib.crc32(text) != checksum:
            if is_old:
                return None
            raise DamagedEntryError("cut off" if magic != _MAGIC else "wrong checksum")
        facts = json.loads(text)
        try:
            if facts["stamp"] != _stamp(record):
                return None
        except OSError:  # the reader of the video will say why
            return None
        info = VideoInfo(**{**facts["info"], "warnings": tuple(facts["info"]["warnings"])})
        indices = np.arange(info.num_frames) if facts["indices"] is None else np.array(facts["indices"], np.int64)
        shape = len(indices), info.height, info.width, 3
        if math.prod(shape) != end - _END.size - length or not len(indices):
            raise DamagedEntryError("another length")
        return Entry(info, indices, np.memmap(path, np.uint8, mode="r", shape=shape), facts["checksums"])

    def store(
        self,
        record: VideoRecord,
        info: Callable[[], VideoInfo],
        indices: np.ndarray,
        frames: Iterable[np.ndarray],
    ) -> None:
        """Store `frames`, arrays (n, height, width, 3) that follow one another, of these indices of the video.

        Args:
            info: called when all frames are decoded, which may bring more warnings.

        Raises:
            OSError: they cannot be written, for example because no space is left.
        """
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".writing")
        try:
            with open(handle, "wb") as file:
                checksums: list[int] = []
                for chunk in map(np.ascontiguousarray, frames):
                    file.write(chunk.data)
                    checksums += map(zlib.crc32, chunk)
                facts = {
                    "stamp": _stamp(record),
                    "info": asdict(info()),
                    "indices": None if self.all_frames else indices.tolist(),
                    "checksums": checksums,
                }
                text = json.dumps(facts).encode()
                file.write(text + _END.pack(len(text), zlib.crc32(text), _MAGIC))
                file.flush()
                os.fsync(file.fileno())
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
        self._damage = ""
        self._entry: Entry | None = None
        try:
            self._entry = cache.load(record)
        except DamagedEntryError as error:
            self._damage = str(error)
        self._info = self._entry.info if self._entry else self._scaled_info()

    @property
    def info(self) -> VideoInfo:
        """See `VideoReader`."""
        damage = (DAMAGED.format(self._damage),) if self._damage else ()
        return replace(self._info, warnings=(*self._info.warnings, *damage))

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader`."""
        requested = np.asarray(indices, np.int64)
        if self._entry is not None and np.isin(requested, self._entry.indices).all():
            try:
                return self._entry.get(requested)
            except DamagedEntryError as error:
                self._damage = str(error)
        self._entry = self._decode(requested)
        return self._entry.get(requested)

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

    def _scaled_info(self) -> VideoInfo:
        """That of the video itself, at the stored size."""
        info = self._decoder().info
        height, width = self._cache.stored_size((info.height, info.width))
        return replace(info, height=height, width=width)

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
            frames = (resize(reader.read(chunk), size) for chunk in chunks)
            self._cache.store(self._record, self._scaled_info, indices, frames)
            entry = self._cache.load(self._record)
        except (VideoReadError, DamagedEntryError, OSError):  # damaged at other frames, no space: nothing is stored
            entry = None
        if entry is None:
            indices = np.unique(requested)
            entry = Entry(self._info, indices, resize(reader.read(indices), size))
        self._info = self._scaled_info()
        return entry


def _stamp(record: VideoRecord) -> str:
    """A hash of size and time of change of the video's file or of each of its pictures."""
    status = [os.stat(file) for file in record.frames or (record.path,)]
    return hashlib.sha256(repr([(each.st_size, each.st_mtime_ns) for each in status]).encode()).hexdigest()[:16]
