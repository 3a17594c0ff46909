"""Opens a video, file or folder of pictures, for reading frames by index; chooses the decoder."""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from timesformer.utils.console import printable
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.utils.files import not_a_file
from timesformer.video.containers import first_video_stream, open_container
from timesformer.video.pyav_reader import PyAVReader
from timesformer.video.torchcodec_reader import TorchCodecReader
from timesformer.video.video_info import VideoInfo

BACKENDS = ("auto", "pyav", "torchcodec")


class VideoReader(Protocol):
    """An open video; a context manager. It belongs to the process that opened it."""

    @property
    def info(self) -> VideoInfo:
        """What is known of the video; reading may add warnings."""

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames by their place in display order.

        Args:
            indices: in any order, repeated or not, each in [0, info.num_frames).

        Returns:
            uint8 RGB, (len(indices), height, width, 3).

        Raises:
            VideoReadError: a frame does not exist or cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...

    def __enter__(self) -> VideoReader: ...

    def __exit__(self, *exc: object) -> None: ...


def open_video(path: str, *, backend: str = "pyav") -> VideoReader:
    """Opens a video file.

    Raises:
        VideoReadError: the file is missing, empty, no video, without pictures, or none can be decoded.
        UserError: `backend` is unknown or does not work here.
    """
    backend = resolve_backend(backend)
    return _TypedErrors(path, lambda: _open_video(path, backend))


def _open_video(path: str, backend: str) -> VideoReader:
    if backend == "torchcodec" and printable(path) == path:  # torchcodec takes UTF-8 names only
        with open_container(path) as container:  # names faults; torchcodec itself takes the "best" stream
            stream_index = first_video_stream(container, path).index
            if container.format.name != "avi":  # there, with B-frames, torchcodec 0.17 is not exact
                return TorchCodecReader(path, stream_index)
    return PyAVReader(path)


def open_frames(files: Sequence[str], *, fps: float) -> VideoReader:
    """Opens a video kept as picture files, in order. The rate is the caller's to know or to assume.

    Raises:
        VideoReadError: there is no file, or the first one is not a picture.
    """
    return _TypedErrors(files[0] if files else "(folder of frames)", lambda: _PictureReader(files, fps))


def open_array(frames: np.ndarray, *, fps: float) -> VideoReader:
    """Frames in memory, uint8 RGB (T, H, W, 3), as a video."""
    return _ArrayReader(frames, fps)


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 scaled to (height, width) as `transforms.py` scales them; as they are if they fit."""
    if frames.shape[1:3] == size:
        return frames
    import cv2

    return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR) for frame in frames])


def resolve_backend(name: str) -> str:
    """The decoder that `DATA.DECODING_BACKEND: name` means here: "pyav" or "torchcodec".

    Raises:
        UserError: the name is unknown, or torchcodec is requested and does not decode.
    """
    if name not in BACKENDS:
        raise UserError(f"DATA.DECODING_BACKEND: {name!r} is no decoder; choose one of {', '.join(BACKENDS)}")
    if name == "pyav":
        return name
    problem = _torchcodec_problem()
    if problem and name == "torchcodec":
        raise UserError(
            f"DATA.DECODING_BACKEND: torchcodec does not decode here ({problem}). It needs FFmpeg's "
            "shared libraries (apt-get install ffmpeg, or conda install ffmpeg) and the torchcodec made for "
            f"torch {importlib.metadata.version('torch')}. Or set DATA.DECODING_BACKEND pyav, which brings "
            "FFmpeg with it and gives the same frames."
        )
    return "pyav" if problem else "torchcodec"


@lru_cache(maxsize=1)
def _torchcodec_problem() -> str:
    """Why torchcodec does not decode, in a line; empty where it does. (It may import and yet not decode.)"""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "probe.mp4")
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            for packet in [*stream.encode(picture), *stream.encode()]:
                container.mux(packet)
        try:
            with TorchCodecReader(path, 0) as reader:
                reader.read([0])
        except (ImportError, RuntimeError, OSError, VideoReadError) as error:
            return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ""


class _TypedErrors:
    """A reader of which every failure is a `VideoReadError` that names `path`: libraries raise what they like."""

    def __init__(self, path: str, open_it: Callable[[], VideoReader]) -> None:
        self._path = path
        with self._named():
            self._reader = open_it()

    @property
    def info(self) -> VideoInfo:
        """See `VideoReader`."""
        return self._reader.info

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader`."""
        with self._named():
            return self._reader.read(indices)

    def close(self) -> None:
        """See `VideoReader`."""
        self._reader.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            cause = next(iter(str(error).strip().splitlines()), "")
            raise VideoReadError(self._path, f"reading it fails with {type(error).__name__}: {cause}") from error

    def __enter__(self) -> _TypedErrors:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _ArrayReader:
    """Frames in memory."""

    def __init__(self, frames: np.ndarray, fps: float) -> None:
        self._frames = frames
        self.info = VideoInfo(num_frames=len(frames), fps=fps, height=frames.shape[1], width=frames.shape[2])

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader`."""
        return self._frames[np.asarray(indices, np.int64)]

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> _ArrayReader:
        return self

    def __exit__(self, *exc: object) -> None: ...


class _PictureReader:
    """Frames from picture files."""

    def __init__(self, files: Sequence[str], fps: float) -> None:
        if not files:
            raise VideoReadError("(folder of frames)", "it has no pictures")
        self._files = files
        height, width = _read_picture(files[0]).shape[:2]
        self.info = VideoInfo(num_frames=len(files), fps=fps, height=height, width=width)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader`."""
        requested = np.asarray(indices, np.int64)
        if outside := [int(i) for i in requested if not 0 <= i < len(self._files)]:
            cause = f"frame {outside[0]} was requested; the folder has {len(self._files)}, from 0"
            raise VideoReadError(self._files[0], cause)
        wanted, inverse = np.unique(requested, return_inverse=True)
        frames = np.empty((len(wanted), self.info.height, self.info.width, 3), np.uint8)
        for slot, i in enumerate(wanted):
            picture = _read_picture(self._files[i])
            if picture.shape != frames.shape[1:]:
                raise VideoReadError(
                    self._files[i],
                    f"it is {picture.shape[1]}x{picture.shape[0]}, the first picture of its folder is "
                    f"{self.info.width}x{self.info.height}",
                )
            frames[slot] = picture
        return frames[inverse]

    def close(self) -> None:
        """No file stays open."""

    def __enter__(self) -> _PictureReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _read_picture(file: str) -> np.ndarray:
    """One picture as uint8 RGB (H, W, 3)."""
    if not Path(file).is_file():
        kind = not_a_file(file)
        raise VideoReadError(file, f"it is {kind}" if kind else "no such picture file")
    try:
        import cv2
    except ImportError as error:  # the runner without torch needs it for nothing else
        raise VideoReadError(file, "OpenCV reads pictures; pip install opencv-python-headless") from error
    if printable(file) == file:
        picture = cv2.imread(file, cv2.IMREAD_COLOR_RGB)
    else:  # OpenCV crashes on names that are not UTF-8
        content = np.fromfile(file, np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB) if content.size else None
    if picture is None:
        raise VideoReadError(file, "it is not a picture that OpenCV can read: empty, truncated or of another kind")
    return picture
