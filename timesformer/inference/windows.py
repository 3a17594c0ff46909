"""A long video as windows of fixed length, for predictions over time."""

from __future__ import annotations

from dataclasses import replace

from timesformer.datasets.opening import open_record
from timesformer.datasets.records import VideoRecord


def windows(record: VideoRecord, *, window_sec: float, stride_sec: float) -> list[VideoRecord]:
    """Parts of `record`, `window_sec` long, that begin every `stride_sec`; one, of all of it, where it is shorter.

    Raises:
        VideoReadError: the video cannot be opened.
    """
    with open_record(record, backend="pyav") as reader:
        end_sec = min(record.end_sec or reader.info.duration_sec, reader.info.duration_sec)
    room = end_sec - record.start_sec - window_sec
    if room <= 0:
        return [replace(record, end_sec=end_sec)]
    starts = [record.start_sec + stride_sec * i for i in range(int(room / stride_sec + 1e-6) + 1)]
    return [replace(record, start_sec=start, end_sec=start + window_sec) for start in starts]
