"""Opens media files and finds their video stream, or says in words why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from timesformer.utils.errors import UserError, VideoReadError

# Titles that are not UTF-8 are no reason to refuse a video; PyAV 19 never does.
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Make whatever a parser or decoder raises the `VideoReadError` of its file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of many types: damaged files lead decoders anywhere
        raise VideoReadError(path, f"its decoder fails: {type(error).__name__}: {error}") from error


def open_container(path: str) -> InputContainer:
    """Opens a media file.

    Raises:
        VideoReadError: it is missing, empty, text, or no media file; the cause says which.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(1024)
    except OSError as error:
        cause = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise VideoReadError(path, cause) from error
    if problem := _not_media(head):
        raise VideoReadError(path, problem)
    try:
        known = "avi" if head.startswith(b"RIFF") and head[8:12] == b"AVI " else None  # spares FFmpeg a guess
        return av.open(f"file:{path}", format=known, **_ANY_METADATA)  # "file:": a name may have a colon
    except (av.error.FFmpegError, OSError) as error:
        cause = f"it is not a video that FFmpeg can open: {error.strerror}"
        if b"ftyp" in head[:16]:
            cause = f"the mp4 is truncated: its index is missing (interrupted download?): {error.strerror}"
        raise VideoReadError(path, cause) from error


def first_video_stream(container: InputContainer, path: str) -> VideoStream:
    """The first stream of moving pictures, cover art left out.

    Raises:
        VideoReadError: there is none, or no decoder for it.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoReadError(path, "PyAV has no decoder for its video stream; re-encode it, say as H.264")
            stream.codec_context.thread_count = 1
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise VideoReadError(path, f"it has no video stream (only {kinds})")


def _not_media(head: bytes) -> str | None:
    """What a file that begins with `head` is, if it is certainly no video."""
    if not head:
        return "the file is empty"
    if head.startswith(b"YUV4MPEG2"):
        return None
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else it is a character that the cut broke
            return None
        text = head[: error.start].decode()
    if any(char < " " and char not in "\t\n\r\f" for char in text):
        return None
    if "<html" in text.lower() or "<!doctype" in text.lower():
        return "it is a web page (HTML), not a video: a failed download?"
    return "it is a text file, not a video"
