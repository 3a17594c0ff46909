"""Opens what a record names, and chooses the frames of its clips; needs no torch."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np

from timesformer.datasets.files import list_pictures
from timesformer.datasets.records import VideoRecord, in_memory
from timesformer.utils.errors import VideoReadError
from timesformer.video.frame_samplers import FrameSampler
from timesformer.video.readers import VideoReader, open_array, open_frames, open_video
from timesformer.video.video_info import VideoInfo

Label: TypeAlias = "int | tuple[int, ...]"

FRAME_FOLDER_FPS = 30.0  # of frame folders whose rate nobody gives


def as_record(video: Any, label: Label = -1) -> VideoRecord:
    """A record of a video file, a folder of pictures, or frames in memory, uint8 RGB (T, H, W, 3), also as a list.

    Raises:
        VideoReadError: frames of another shape or type, or a folder of several picture series.
    """
    if isinstance(video, VideoRecord):
        return video
    if isinstance(video, (list, tuple)) or hasattr(video, "__array__"):  # torch's tensors have it too
        frames = np.asarray(video)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
            cause = f"found {frames.dtype} of shape {frames.shape}; allowed: uint8 RGB (frames, height, width, 3)"
            raise VideoReadError("(frames in memory)", cause)
        return VideoRecord("(frames in memory)", label, "array", frames)
    path = str(video)
    try:
        return VideoRecord(path, label, "path", list_pictures(path) if os.path.isdir(path) else ())
    except ValueError as error:
        raise VideoReadError(path, str(error)) from error


def open_record(record: VideoRecord, *, backend: str) -> VideoReader:
    """Open the video file, frame folder or frames in memory of `record`.

    Raises:
        VideoReadError: it cannot be opened.
    """
    if in_memory(record):
        frames: Any = record.frames
        return open_array(frames, fps=record.fps or FRAME_FOLDER_FPS)
    if record.frames:
        return open_frames(record.frames, fps=record.fps or FRAME_FOLDER_FPS)
    return open_video(record.path, backend=backend)


def sample_record(
    record: VideoRecord, info: VideoInfo, frame_sampler: FrameSampler, generator: np.random.Generator
) -> np.ndarray:
    """Frames, int64 (num_clips, num_frames), that the sampler takes of the part of the video that counts.

    Raises:
        VideoReadError: the record's part (`start_sec` to `end_sec`) has no frame in the video.
    """
    first, last = part_of(record, info)
    if first >= last:
        part = f"no frame from {record.start_sec:g} to {record.end_sec:g} s"
        raise VideoReadError(record.path, f"{part}; it is {info.duration_sec:.1f} s long")
    return first + frame_sampler(last - first, info.fps, generator)


def part_of(record: VideoRecord, info: VideoInfo) -> tuple[int, int]:
    """First frame of the part of the video that counts, and the one after its last."""
    last = min(round(record.end_sec * info.fps) or info.num_frames, info.num_frames)
    return round(record.start_sec * info.fps), last


def read_clips(reader: VideoReader, indices: np.ndarray) -> list[np.ndarray]:
    """The frames (num_clips, T) of a video as clips, uint8 (T, H, W, 3); each frame is decoded and kept once.

    Raises:
        VideoReadError: a frame cannot be decoded.
    """
    wanted, inverse = np.unique(indices, return_inverse=True)
    frames = reader.read(wanted)  # (distinct, H, W, 3)
    return [frames[rows] for rows in inverse.reshape(indices.shape)]
