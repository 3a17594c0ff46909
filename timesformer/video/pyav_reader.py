"""Reads exactly the requested frames from a video file, with PyAV.

A first pass over the packets, without decoding, tells how many frames there are, when each is shown and from
which keyframe it can be reached. Where that can be trusted, only the parts of the file that hold wanted
frames are decoded; elsewhere, and wherever the decoder reports damage, the file is decoded from its start and frames
are counted. Either way frame i is the i-th frame in display order among those that a plain decode from the start gives.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import dropwhile, islice
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from timesformer.utils.errors import VideoReadError
from timesformer.video.containers import first_video_stream, open_container, reading
from timesformer.video.video_info import VideoInfo, usable_fps

_MAX_UNCODED_PICTURE_BYTES = 19  # MPEG-4 packets up to this size may say "no picture here", as FFmpeg sees it
_MAX_SURVEYS = 4096  # that a process remembers: some ten MB
_MAX_HELD_BYTES = 2**24  # of a file whose packets wait in memory, from its survey on, for being decoded
_DAMAGED = "the decoder reports damaged frames; they are shown as it conceals them"
_MAX_SHORTFALL = 0.05  # of the promised duration; a file that lacks more is called truncated


class PyAVReader:
    """A video file open for reading; see `readers.VideoReader`. One thread, one RGB converter."""

    def __init__(self, path: str) -> None:
        self._path, self._is_fresh = path, False
        self._packets: list[av.Packet[VideoStream]] = []  # all, where the survey kept them
        self._decoded: dict[int | None, list[av.VideoFrame]] = {}  # by pts of the last packet sent
        self._open()
        try:
            status = os.stat(path)
            file = path, status.st_size, status.st_mtime_ns
            if (survey := _surveys.get(file)) is None:
                self._is_fresh = False
                with reading(path):
                    survey, self._packets, self._decoded = _survey(self._container, self._stream, file)
                _remember(file, survey)
        except BaseException:
            self.close()
            raise
        self._survey, self.info = survey, survey.info
        self._reformatter = VideoReformatter()

    def _open(self) -> None:
        """Open the file, with a decoder that has not decoded anything."""
        self._container, self._is_fresh = open_container(self._path), True
        try:
            self._stream = first_video_stream(self._container, self._path)
        except BaseException:
            self.close()
            raise

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames by place in display order: uint8 RGB (len(indices), H, W, 3); see `readers.VideoReader`."""
        survey, places = self._survey, [int(i) for i in indices]
        wanted = sorted(set(places))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.info.num_frames:
            beyond = wanted[0] if wanted[0] < 0 else wanted[-1]
            cause = f"frame {beyond} was requested; it has {self.info.num_frames}, from 0"
            raise VideoReadError(self._path, cause)
        frames = np.empty((len(wanted), *survey.coded_size, 3), np.uint8)
        slots = {name: slot for slot, name in enumerate(survey.pts[wanted].tolist() if survey.trusted else wanted)}
        with reading(self._path):
            if wanted and not (survey.trusted and self._read_by_seeking(slots, frames)):
                self._read_linearly(slots, frames, wanted)
        if places != wanted:
            frames = frames[np.searchsorted(wanted, places)]
        return np.ascontiguousarray(_upright(frames, survey.matrix))

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read_by_seeking(self, slots: dict[int, int], frames: np.ndarray) -> bool:
        """Fill `frames` by {pts: slot}, one keyframe at a time; False where a decode from the start may give others."""
        keys, wanted = self._survey.key_pts, list(slots)
        groups: dict[int, set[int]] = {}
        before = np.searchsorted(keys, np.array(wanted, np.int64), side="right") - 1
        for pts, key in zip(wanted, keys[before].tolist(), strict=True):
            groups.setdefault(key, set()).add(pts)
        was_fresh, self._is_fresh = self._is_fresh, False
        try:
            if all(self._read_group(key, group, slots, frames) for key, group in groups.items()):
                return True
        except av.error.FFmpegError:
            pass
        if was_fresh:
            return False
        self.close()  # what a decoder makes of damage may depend on what it decoded before
        self._open()
        self._packets, self._decoded = [], {}
        return self._read_by_seeking(slots, frames)

    def _read_group(self, key: int, wanted: set[int], slots: dict[int, int], frames: np.ndarray) -> bool:
        """Fill `frames` with the wanted pts from the keyframe at pts `key` on; False if something is odd."""
        last = key - 1
        for frame in self._decode_group(key, wanted):
            if frame.pts is not None and frame.pts < key:
                continue  # shown before the keyframe, it needs the one before it and belongs to its group
            if frame.is_corrupt or frame.pts is None or frame.pts <= last:
                return False
            last = frame.pts
            if last in wanted:
                wanted.remove(last)
                frames[slots[last]] = self._to_rgb(frame)
        return not wanted

    def _decode_group(self, key: int, wanted: set[int]) -> Iterator[av.VideoFrame]:
        """What the decoder gives from the keyframe at pts `key` on, up to the wanted pts; less where seeking fails.

        The caller removes from `wanted` what it got. Damage of a frame that is not wanted spreads to others, so those
        that the decoder holds back are given too.
        """
        codec, unsent = self._stream.codec_context, set(wanted)
        skips = codec.name != "libdav1d"  # reads skip_frame only when it opens: wanted frames would be missing
        for packet in self._packets_from(key):
            codec.skip_frame = "NONREF" if skips and packet.size and packet.pts not in wanted else "DEFAULT"
            yield from self._decoded.pop(packet.pts, None) or codec.decode(packet if packet.size else None)
            unsent.discard(packet.pts)
            if not packet.size or (self._survey.interlaced and not wanted):
                return
            if not (unsent or self._survey.interlaced):  # no packet after the last wanted one is needed
                codec.skip_frame = "DEFAULT"
                yield from codec.decode(None)
                return

    def _packets_from(self, key: int) -> Iterator[av.Packet[VideoStream]]:
        """The packets that the survey met from the keyframe at pts `key` on, wherever they are read from."""
        codec = self._stream.codec_context
        if self._packets:
            if key not in self._decoded:
                self._decoded = {}
                codec.flush_buffers()
            yield from dropwhile(lambda packet: packet.pts != key, self._packets)
            return
        expected = self._survey.packets
        index = int(np.argmax(expected[:, 0] == key))
        self._container.seek(key, stream=self._stream, backward=True)
        after_seek = self._container.demux(self._stream)
        for packet in dropwhile(lambda packet: packet.size and (packet.pts or 0) < key, after_seek):
            if index < len(expected) and expected[index].tolist() != [packet.pts, packet.size]:
                break  # some seeks land late, and in damaged files packets are cut otherwise
            yield packet
            index += 1
        else:
            return
        with open_container(self._path) as container:
            yield from islice(container.demux(first_video_stream(container, self._path)), index, None)

    def _read_linearly(self, slots: dict[int, int], frames: np.ndarray, wanted: list[int]) -> None:
        """Fill `frames` by {pts or index: slot}, by decoding from the start; damage on the way becomes a warning.

        Raises:
            VideoReadError: one of them is not among the frames that can be decoded.
        """
        cause, missing = "the rest is missing", dict(slots)
        num_decoded, last = 0, -math.inf
        try:
            for frame in _decode_from_start(self._path):
                place = frame.pts if self._survey.trusted and frame.pts is not None else num_decoded
                if (frame.is_corrupt or place <= last) and _DAMAGED not in self.info.warnings:
                    self.info = replace(self.info, warnings=(*self.info.warnings, _DAMAGED))
                slot = missing.pop(place, None)
                num_decoded, last = num_decoded + 1, place
                if slot is not None:
                    frames[slot] = self._to_rgb(frame)
                    if not missing:
                        return
        except av.error.FFmpegError as error:
            cause = f"then: {error.strerror}"
        first = wanted[min(missing.values())]
        counts = f"{num_decoded} of its {self.info.num_frames} frames can"
        raise VideoReadError(self._path, f"frame {first} cannot be decoded: {counts}, {cause}")

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 (height, width, 3), not turned yet. A frame of another size is scaled to that of the first."""
        height, width = self._survey.coded_size
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return rgb.to_ndarray()


@dataclass(frozen=True)
class _Survey:
    """What the packets of a stream and its first frame say.

    Attributes:
        info: what the user sees.
        trusted: whether packets and frames correspond one to one, by pts.
        pts: of the packets, in display order, in units of the stream's time base; int64.
        packets: pts and size in bytes of each, as they are stored; int64 (n, 2).
        key_pts: of the keyframes among them.
        interlaced: whether a frame may come in two packets.
        coded_size: height and width as stored, in pixels.
        matrix: of display, as FFmpeg keeps it: rows (a, b, u), (c, d, v), (x, y, w); int32.
    """

    info: VideoInfo
    trusted: bool
    pts: np.ndarray
    packets: np.ndarray
    key_pts: np.ndarray
    interlaced: bool
    coded_size: tuple[int, int]
    matrix: np.ndarray


_surveys: dict[tuple[str, int, int], _Survey] = {}  # by path, size and time of change of the file


def _remember(file: tuple[str, int, int], survey: _Survey) -> None:
    """A file is surveyed once for each process, as long as it does not change."""
    if len(_surveys) >= _MAX_SURVEYS and file not in _surveys:
        _surveys.clear()
    _surveys[file] = survey


@dataclass
class _Scan:
    """What one pass over the packets of a stream gives, decoding one frame only."""

    packets: list[tuple[int | None, bool, int]] = field(default_factory=list)  # pts, keyframe, size
    held: list[av.Packet[VideoStream]] = field(default_factory=list)  # of small files: all packets
    decoded: dict[int | None, list[av.VideoFrame]] = field(default_factory=dict)  # by pts of the packet
    frame: av.VideoFrame | None = None
    odd: bool = False  # a packet does not stand for one picture
    cut: bool = False  # a packet is not whole, which may give a frame or not
    end: int = 0  # of the last packet, in pts
    damage: str | None = None  # the error that ended the pass

    def read(self, container: InputContainer, stream: VideoStream, *, hold: bool) -> None:
        """Pass over the packets."""
        codec = stream.codec_context
        smallest = _MAX_UNCODED_PICTURE_BYTES + 1 if codec.name == "mpeg4" else 0
        try:
            for packet in container.demux(stream):
                if packet.size:
                    self.packets.append((packet.pts, packet.is_keyframe, packet.size))
                    self.odd |= packet.is_discard or packet.size < smallest
                    self.end = max(self.end, (packet.pts or 0) + (packet.duration or 0))
                self.cut |= packet.is_corrupt
                if hold:
                    self.held.append(packet)
                if self.frame is None:
                    if pictures := packet.decode():
                        self.decoded = {packet.pts: pictures}
                    elif packet.is_keyframe:  # others may come to be shown before it: do not wait for them
                        pictures = stream.decode(None)
                        codec.flush_buffers()
                    self.frame = next(iter(pictures), None)
        except av.error.FFmpegError as error:
            self.damage = str(error.strerror)

    def one_to_one(self, container: InputContainer, stream: VideoStream) -> bool:
        """Whether packets and frames correspond one to one, by pts."""
        stamps = [pts for pts, *_ in self.packets]
        name, flags = container.format.name, container.format.flags
        guessed = bool(flags & cast("int", Flags.no_timestamps.value)) or name == "mpeg"
        reordered_avi = name == "avi" and bool(stream.codec_context.has_b_frames)
        wrong_order = stream.codec_context.name in ("vp8", "vp9") and stamps != sorted(stamps, key=lambda pts: pts or 0)
        if (
            None in stamps
            or len(set(stamps)) < len(stamps)
            or self.odd
            or self.cut
            or self.damage
            or guessed
            or reordered_avi
            or wrong_order
        ):
            return False
        return self.packets[0][:2] == (min(stamps), True)  # type: ignore[type-var]  # a keyframe, and shown first


def _survey(
    container: InputContainer, stream: VideoStream, file: tuple[str, int, int]
) -> tuple[_Survey, list[av.Packet[VideoStream]], dict[int | None, list[av.VideoFrame]]]:
    """Passes over all packets, decoding one frame only.

    Returns:
        What there is to know; and if the file is small and can be trusted, its packets and, by the pts of the
        only one that was decoded, what the decoder gave for it.

    Raises:
        VideoReadError: no frame can be decoded.
    """
    scan = _Scan()
    scan.read(container, stream, hold=file[1] <= _MAX_HELD_BYTES)
    frame, packets = scan.frame, scan.packets
    if frame is None:
        raise VideoReadError(file[0], f"none of its frames can be decoded: {scan.damage or 'it seems to have none'}")
    trusted = scan.one_to_one(container, stream) and frame.pts == packets[0][0] and not frame.is_corrupt
    num_frames, damage = (len(packets), None) if trusted else _count_frames(*file)
    num_there = num_frames if scan.cut else len(packets)
    fps, warnings = _rate_and_warnings(stream, num_there, scan.end)
    if damage and num_frames < num_there:
        warnings.append(f"{num_frames} of {num_there} frames can be decoded, then: {damage}")
    side_data = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
    matrix = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3) if side_data else np.eye(3, dtype=np.int32)
    height, width = _upright(np.empty((1, frame.height, frame.width)), matrix).shape[1:]
    survey = _Survey(
        info=VideoInfo(num_frames=num_frames, fps=fps, height=height, width=width, warnings=tuple(warnings)),
        trusted=trusted,
        pts=np.sort(np.array([pts for pts, *_ in packets if pts is not None], np.int64)),
        packets=np.array([(pts, size) for pts, _, size in packets] if trusted else [], np.int64),
        key_pts=np.sort(np.array([pts for pts, is_key, _ in packets if is_key and pts is not None], np.int64)),
        interlaced=frame.interlaced_frame,
        coded_size=(frame.height, frame.width),
        matrix=matrix,
    )
    return (survey, scan.held, scan.decoded) if trusted and scan.held else (survey, [], {})


def _rate_and_warnings(stream: VideoStream, num_there: int, end: int) -> tuple[float, list[str]]:
    """Frames per second and what to warn of, of a stream of `num_there` frames whose last packet ends at pts `end`."""
    fps, warnings = usable_fps(stream.average_rate, stream.guessed_rate)
    promised = stream.frames
    if not promised and (promised_sec := _promised_sec(stream)):
        missing_sec = promised_sec - end * float(stream.time_base or 0)
        if missing_sec > _MAX_SHORTFALL * promised_sec:
            promised = num_there + round(missing_sec * fps)
    if promised > num_there:
        warnings.append(f"the header promises {promised} frames and {num_there} are there (truncated?)")
    return fps, warnings


def _promised_sec(stream: VideoStream) -> float:
    """How long the video is by a Matroska header; 0 where none speaks of the video alone."""
    if tag := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""), re.ASCII):
        return 3600 * float(tag[1]) + 60 * float(tag[2]) + float(tag[3])  # "00:00:10.333000000"
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


def _upright(images: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turns and mirrors `images` (N, H, W, ...) to the nearest right angle of x' = a x + c y, y' = b x + d y."""
    (a, b), (c, d) = matrix[:2, :2]
    if abs(b) > abs(a):
        images = images.swapaxes(1, 2)
        a, d = c, b
    return images[:, :: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
