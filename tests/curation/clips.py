"""Generated gestures as small files, copies of them, and lists of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.datasets import media
from timesformer.datasets.gestures.rendering import FPS, render_clip, write_video
from timesformer.datasets.records import VideoList, VideoRecord

SIZE = (48, 64)  # (height, width) in pixels
CODECS = (
    ("libx264", {"crf": "33"}, ".mp4"),
    ("mpeg4", {"qmin": "10", "qmax": "10"}, ".avi"),
    ("libvpx", {"crf": "40", "b": "60k"}, ".webm"),
)
SIZES = ((40, 36), (48, 32), (96, 72), (128, 64))  # (width, height) of copies, some of another shape


def gestures(folder: Path, number: int, *, seed: int) -> list[VideoRecord]:
    """Clips of people who make each of 12 gestures once."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(number):
        person, label = divmod(index, 12)
        path = folder / f"{index:04}.avi"
        write_video(path, render_clip(seed, 0, person, label, frame_size=SIZE, hard=False), "mpeg4")
        records.append(VideoRecord(str(path), label, f"list.csv:{index + 1}", subject=f"S{person}"))
    return records


def copy_of(record: VideoRecord, path: Path, variant: int, *, trim: tuple[float, float] = (0.1, 0.1)) -> VideoRecord:
    """The same clip in another codec and size, without some of its start and end; `variant` chooses."""
    codec, options, suffix = CODECS[variant % len(CODECS)]
    size = SIZES[variant % len(SIZES)]
    frames, _ = media.decode_all(record.path)
    frames = frames[int(trim[0] * len(frames)) : len(frames) - int(trim[1] * len(frames))]
    scaled = [cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA) for frame in frames]
    written = media.write_video(path.with_suffix(suffix), frames=scaled, fps=FPS, codec=codec, gop=50, options=options)
    return VideoRecord(str(written), record.label, f"copies.csv:{variant + 1}", subject=record.subject)


def a_list(records: Sequence[VideoRecord]) -> VideoList:
    """With the names of the gestures."""
    return VideoList([*records], [f"G{label + 1}" for label in range(12)])


class OddFrames:
    """Frames in memory that hang, or end the process, when they are read."""

    shape = (8, 16, 16, 3)

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self.fault == "hangs":
            time.sleep(60)
        os._exit(3)
