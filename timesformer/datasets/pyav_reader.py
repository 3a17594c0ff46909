"""Reads exactly the frames asked for from a video file, with PyAV.

A first pass over the packets, without decoding, tells how many frames there are, when each is shown and from
which keyframe it can be reached. Where that can be trusted, only the parts of the file that hold wanted
frames are decoded; elsewhere the file is decoded from its start and frames are counted. Either way frame i is
the i-th frame in display order among those that a plain decode from the start gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from timesformer.datasets.containers import first_video_stream, open_container
from timesformer.datasets.video_info import VideoInfo, usable_fps
from timesformer.utils.errors import VideoReadError

_MAX_UNCODED_PICTURE_BYTES = 19  # MPEG-4 packets up to this size may say "no picture here", as FFmpeg sees it
_MAX_SURVEYS = 4096  # that a process remembers: some ten MB
_MAX_SHORTFALL = 0.05  # of the promised duration; a file that lacks more is called truncated


class PyAVReader:
    """A video file open for reading; see `readers.VideoReader`. One thread, one RGB converter."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._container = open_container(path)
        try:
            self._stream = first_video_stream(self._container, path)
            status = os.stat(path)
            file = path, status.st_size, status.st_mtime_ns
            self._survey = _surveys.get(file) or _survey(self._container, self._stream, path)
            _remember(file, self._survey)
            num_frames, damage = len(self._survey.pts), None
            if not self._survey.trusted:
                num_frames, damage = _count_frames(*file)
            self.info = _describe(self._stream, self._survey, num_frames, damage)
        except BaseException:
            self.close()
            raise
        self._reformatter = VideoReformatter()

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames by place in display order: uint8 RGB (len(indices), H, W, 3); see `readers.VideoReader`."""
        wanted, inverse = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.info.num_frames:
            beyond = wanted[0] if wanted[0] < 0 else wanted[-1]
            cause = f"frame {beyond} was asked for; it has {self.info.num_frames}, from 0"
            raise VideoReadError(self._path, cause)
        frames = np.empty((len(wanted), self.info.height, self.info.width, 3), np.uint8)
        if self._survey.trusted:
            missing = {int(self._survey.pts[i]): slot for slot, i in enumerate(wanted)}
            self._read_by_seeking(missing, frames)
        else:
            missing = {int(i): slot for slot, i in enumerate(wanted)}
        if missing:
            self._read_linearly(missing, frames, wanted)
        return frames if np.array_equal(inverse, np.arange(len(wanted))) else frames[inverse]

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read_by_seeking(self, missing: dict[int, int], frames: np.ndarray) -> None:
        """Fills slots of `frames` from {pts: slot}, one seek a keyframe; leaves in `missing` the rest."""
        keys = self._survey.key_pts
        groups: dict[int, dict[int, int]] = {}
        for pts, slot in missing.items():
            key = int(keys[np.searchsorted(keys, pts, side="right") - 1])
            groups.setdefault(key, {})[pts] = slot
        try:
            for key, group in groups.items():
                for pts, frame in self._decode_group(key, set(group)):
                    frames[group[pts]] = self._to_rgb(frame)
                    del missing[pts]
        except av.error.FFmpegError:
            return  # the linear decode finds out what of the rest can be read, and names the cause

    def _decode_group(self, key: int, wanted: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames with the wanted pts, decoded from the keyframe at pts `key`; fewer where seeking fails.

        Pictures shown before a keyframe but stored after it (open GOP) need the keyframe before: they belong
        to its group, and what the decoder makes of them here is passed over.
        """
        codec = self._stream.codec_context
        self._container.seek(key, stream=self._stream, backward=True)
        landed, unsent = False, set(wanted)
        for packet in self._container.demux(self._stream):
            if not landed and (packet.pts is None or packet.pts > key):
                return
            landed = True
            codec.skip_frame = "DEFAULT" if not packet.size or packet.pts in wanted else "NONREF"
            frames = packet.decode()
            unsent.discard(packet.pts)
            if drain := not unsent and packet.size > 0 and not self._survey.interlaced:
                frames += self._stream.decode(None)  # what follows in the file is not needed
            for frame in frames:
                if frame.pts in wanted:
                    wanted.remove(frame.pts)
                    yield frame.pts, frame
            if drain or not wanted:
                return

    def _read_linearly(self, missing: dict[int, int], frames: np.ndarray, wanted: np.ndarray) -> None:
        """Fills slots from {pts or place: slot} by decoding from the start.

        Raises:
            VideoReadError: one of them is not among the frames that can be decoded.
        """
        cause = "the rest is missing"
        num_decoded = 0
        try:
            for frame in _decode_from_start(self._path):
                place = frame.pts if self._survey.trusted else num_decoded
                slot = missing.pop(place, None) if place is not None else None
                num_decoded += 1
                if slot is not None:
                    frames[slot] = self._to_rgb(frame)
                    if not missing:
                        return
        except av.error.FFmpegError as error:
            cause = f"then: {error.strerror}"
        first = int(wanted[min(missing.values())])
        counts = f"{num_decoded} of its {self.info.num_frames} frames can"
        raise VideoReadError(self._path, f"frame {first} cannot be decoded: {counts}, {cause}")

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 (height, width, 3), upright. A frame of another size is scaled to that of the first."""
        height, width = self._survey.coded_size
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return _upright(rgb.to_ndarray(), self._survey.matrix)


@dataclass(frozen=True)
class _Survey:
    """What the packets of a stream and its first frame say.

    Attributes:
        trusted: whether packets and frames correspond one to one, by pts.
        pts: of the packets, in display order, in units of the stream's time base; int64.
        key_pts: of the keyframes among them.
        num_packets: those without pts, too.
        end: pts of the end of the last packet, in the same units.
        interlaced: whether a frame may come in two packets.
        coded_size: height and width as stored, in pixels.
        matrix: of display, as FFmpeg keeps it: rows (a, b, u), (c, d, v), (x, y, w); int32.
    """

    trusted: bool
    pts: np.ndarray
    key_pts: np.ndarray
    num_packets: int
    end: int
    interlaced: bool
    coded_size: tuple[int, int]
    matrix: np.ndarray


_surveys: dict[tuple[str, int, int], _Survey] = {}  # by path, size and time of change of the file


def _remember(file: tuple[str, int, int], survey: _Survey) -> None:
    """A file is surveyed once for each process, as long as it does not change."""
    if len(_surveys) >= _MAX_SURVEYS and file not in _surveys:
        _surveys.clear()
    _surveys[file] = survey


def _survey(container: InputContainer, stream: VideoStream, path: str) -> _Survey:
    """Passes over all packets, decoding the first frame only.

    Raises:
        VideoReadError: no frame can be decoded.
    """
    codec = stream.codec_context
    packets: list[tuple[int | None, bool]] = []  # pts, keyframe
    odd = False
    smallest = _MAX_UNCODED_PICTURE_BYTES + 1 if codec.name == "mpeg4" else 0
    end = 0
    frame: av.VideoFrame | None = None
    damage = ""
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append((packet.pts, packet.is_keyframe))
                odd |= packet.is_discard or packet.is_corrupt or packet.size < smallest
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
            if frame is None:
                frame = next(iter(packet.decode()), None)
    except av.error.FFmpegError as error:
        damage = str(error.strerror)
    if frame is None:
        raise VideoReadError(path, f"none of its frames can be decoded: {damage or 'it seems to have none'}")
    stamps = [pts for pts, _ in packets if pts is not None]
    complete = len(set(stamps)) == len(packets)  # all present, none twice
    elementary = bool(container.format.flags & cast("int", Flags.no_timestamps.value))
    reordered_avi = container.format.name == "avi" and bool(codec.has_b_frames)
    matrix = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
    return _Survey(
        trusted=complete
        and packets[0] == (min(stamps), True)  # starts with a keyframe, and that is shown first
        and not (odd or damage or elementary or reordered_avi),
        pts=np.sort(np.array(stamps, np.int64)),
        key_pts=np.sort(np.array([pts for pts, is_key in packets if is_key and pts is not None], np.int64)),
        num_packets=len(packets),
        end=end,
        interlaced=frame.interlaced_frame,
        coded_size=(frame.height, frame.width),
        matrix=np.frombuffer(bytes(matrix), np.int32).reshape(3, 3) if matrix else np.eye(3, dtype=np.int32),
    )


def _describe(stream: VideoStream, survey: _Survey, num_frames: int, damage: str | None) -> VideoInfo:
    """The facts and warnings that survey and count give."""
    fps, warnings = usable_fps(stream.average_rate, stream.guessed_rate)
    promised = stream.frames
    if not promised and (promised_sec := _promised_sec(stream)):
        missing_sec = promised_sec - survey.end * float(stream.time_base or 0)
        if missing_sec > _MAX_SHORTFALL * promised_sec:
            promised = survey.num_packets + round(missing_sec * fps)
    if promised > survey.num_packets:
        warnings.append(f"the header promises {promised} frames and {survey.num_packets} are there (truncated?)")
    if damage:
        warnings.append(f"{num_frames} of {survey.num_packets} frames can be decoded, then: {damage}")
    height, width = _upright(np.empty(survey.coded_size), survey.matrix).shape
    return VideoInfo(num_frames=num_frames, fps=fps, height=height, width=width, warnings=tuple(warnings))


def _promised_sec(stream: VideoStream) -> float:
    """How long the video is by a Matroska header; 0 where none speaks of the video alone."""
    tag = stream.metadata.get("DURATION", "")  # "00:00:10.333000000"
    if tag.count(":") == 2:
        hours, minutes, seconds = (float(part) for part in tag.split(":"))
        return 3600 * hours + 60 * minutes + seconds
    container = cast("InputContainer", stream.container)
    alone = len(container.streams) == 1 and "matroska" in container.format.name
    return container.duration / av.time_base if alone and container.duration else 0.0


@lru_cache(maxsize=2**16)
def _count_frames(path: str, size: int, mtime_ns: int) -> tuple[int, str | None]:
    """The number of frames that a decode from the start gives, and the error that ended it, if one did.

    Size and time of change are there for the cache alone: a file is counted once for each process.
    """
    count = 0
    try:
        for _ in _decode_from_start(path):
            count += 1
    except av.error.FFmpegError as error:
        return count, str(error.strerror)
    return count, None


def _decode_from_start(path: str) -> Iterator[av.VideoFrame]:
    """All frames of the first video stream in display order, from a container of its own."""
    with open_container(path) as container:
        yield from container.decode(first_video_stream(container, path))


def _upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turns and mirrors `image` (H, W, ...) to the nearest right angle of x' = a x + c y, y' = b x + d y."""
    (a, b), (c, d) = matrix[:2, :2]
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)
        a, d = c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
