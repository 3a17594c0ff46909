"""HowTo100M, long-term task classification (TimeSformer paper, section 4.6): long videos or parts of them."""

from __future__ import annotations

import os
from functools import cache, cached_property
from typing import Any, ClassVar

from timesformer.datasets.files import is_video, videos_by_stem
from timesformer.datasets.kinetics import Kinetics
from timesformer.utils.registry import DATASETS


@DATASETS.register("howto100m")
class HowTo100M(Kinetics):
    """Lists with a header that names `columns` (start and end in seconds), or plain lists like those of Kinetics.

    A video id without extension stands for the video file of that name. Class names may be task ids.
    """

    columns: ClassVar = {
        "path": ("path", "video_path", "file", "video", "video_id", "vid", "id"),
        "label": ("label", "task_id", "task", "class", "category"),
        "start": ("start", "start_sec", "start_time"),
        "end": ("end", "end_sec", "end_time"),
    }

    def locate(self, folder: str, path: str) -> str:
        """The path to open; for a video id without a file, that of an .mp4 file."""
        full = super().locate(folder, path)
        if is_video(path) or os.path.isdir(full):
            return full
        return self._videos(os.path.dirname(full)).get(os.path.basename(full), f"{full}.mp4")

    @cached_property
    def _videos(self) -> Any:
        return cache(videos_by_stem)
