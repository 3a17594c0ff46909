"""What `encode` writes is read back."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from timesformer.video import encode


def moving_square(num_frames: int, height: int, width: int) -> np.ndarray:
    frames = np.full((num_frames, height, width, 3), 30, np.uint8)
    for t, frame in enumerate(frames):
        frame[8:24, 4 * t : 4 * t + 16] = (200, 60, 60)
    return frames


@pytest.mark.skipif(not encode._exists("libx264"), reason="FFmpeg without libx264")
def test_a_clip_becomes_h264_that_browsers_play() -> None:
    frames = moving_square(12, 33, 65)  # odd: the last row and column are left out
    media_type, content = encode.encode(frames, 7.5)
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        assert (stream.codec.name, stream.pix_fmt, float(stream.average_rate or 0)) == ("h264", "yuv420p", 7.5)
    assert media_type == "video/mp4" and content[4:8] == b"ftyp"
    assert read.shape == (12, 32, 64, 3) and np.abs(read.astype(int) - frames[:, :32, :64]).mean() < 8


def test_without_the_encoder_it_is_an_animated_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_exists", lambda encoder: encoder == "gif")
    media_type, content = encode.encode(moving_square(5, 32, 64), 10)
    assert media_type == "image/gif" and content.startswith(b"GIF89a")
    with av.open(io.BytesIO(content)) as container:
        assert len([*container.decode(video=0)]) == 5
    assert not encode._exists("no such encoder")
