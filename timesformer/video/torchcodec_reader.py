"""Reads frames with torchcodec, where it is installed together with FFmpeg's libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from timesformer.utils.errors import VideoReadError
from timesformer.video.video_info import VideoInfo, usable_fps


class TorchCodecReader:
    """A video file open in torchcodec's exact mode; see `readers.VideoReader`."""

    def __init__(self, path: str, stream_index: int) -> None:
        from torchcodec.decoders import VideoDecoder

        self._path = path
        try:
            self._decoder: Any = VideoDecoder(
                path,
                stream_index=stream_index,
                seek_mode="exact",
                num_ffmpeg_threads=1,
                dimension_order="NHWC",
            )
            height, width = self._decoder.get_frame_at(0).data.shape[:2]
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoReadError(path, f"torchcodec cannot decode it: {error}") from error
        fps, warnings = usable_fps(self._decoder.metadata.average_fps)
        self.info = VideoInfo(len(self._decoder), fps, height, width, tuple(warnings))

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `readers.VideoReader`."""
        try:
            return self._decoder.get_frames_at([int(i) for i in indices]).data.numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            cause = f"torchcodec cannot give the frames {min(indices)} to {max(indices)}: {error}"
            raise VideoReadError(self._path, cause) from error

    def close(self) -> None:
        """Lets go of the file."""
        self._decoder = None

    def __enter__(self) -> TorchCodecReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
