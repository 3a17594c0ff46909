"""Compares the CPU time of reading a clip's frames with the textbook way's, on videos rendered on the spot.

The textbook way decodes the file up to the end of the clip, converts every frame to RGB and keeps the few
that are wanted. Prints medians of interleaved runs; trust the ratios, not the milliseconds.

    python benchmarks/reading.py --repeats 15
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from timesformer.datasets.frame_samplers import FrameSampler, UniformSegmentSampler, UniformSpanSampler
from timesformer.datasets.readers import open_video


def render(path: Path, *, size: tuple[int, int], num_frames: int, fps: int, codec: str, gop: int) -> Path:
    """A video of drifting texture with camera noise, so that it compresses about as filmed scenes do."""
    width, height = size
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (height // 16 + 8, width // 16 + 8, 3)).astype(np.uint8)
    scene = scene.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        if codec == "mpeg4":
            stream.codec_context.codec_tag = "DIVX"
        for i in range(num_frames):
            x, y = int(40 + 40 * np.sin(i / 20)), int(40 + 40 * np.cos(i / 17))
            image = scene[y : y + height, x : x + width] // 2 + generator.integers(0, 24, (height, width, 1))
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_textbook(path: Path, sampler: FrameSampler) -> np.ndarray:
    """Decodes the span, converts everything, then indexes."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = sampler(stream.frames, float(stream.average_rate), None)[0]
        images = []
        for i, frame in enumerate(container.decode(stream)):
            images.append(frame.to_ndarray(format="rgb24"))
            if i == wanted[-1]:
                break
    return np.stack(images)[wanted]


def read_by_project(path: Path, sampler: FrameSampler) -> np.ndarray:
    """Reads only what is wanted."""
    with open_video(str(path)) as reader:
        return reader.read(sampler(reader.info.num_frames, reader.info.fps, None)[0])


def cpu_ms(read: Callable[[Path, FrameSampler], np.ndarray], path: Path, sampler: FrameSampler) -> float:
    """CPU time of one call of `read`, in milliseconds."""
    start = time.process_time()
    read(path, sampler)
    return 1000 * (time.process_time() - start)


def main() -> None:
    """Renders, compares and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="runs of each way; the median counts")
    repeats = parser.parse_args().repeats
    film = {"size": (340, 256), "num_frames": 300, "fps": 30, "codec": "libx264"}
    gesture = {"size": (320, 240), "num_frames": 40, "fps": 15, "codec": "mpeg4", "gop": 12}
    kinetics = UniformSpanSampler(8, 32, 30)
    cases = [
        ("340x256, 10 s, GOP 250, 8x32", "a.mp4", {**film, "gop": 250}, kinetics),
        ("340x256, 10 s, GOP 12, 8x32", "b.mp4", {**film, "gop": 12}, kinetics),
        ("340x256, 10 s, all intra, 8x32", "c.mp4", {**film, "gop": 1}, kinetics),
        ("340x256, 10 s, GOP 250, 96x4", "a.mp4", {**film, "gop": 250}, UniformSpanSampler(96, 4, 30)),
        ("DIVX AVI 320x240, 40 frames, uniform 8", "d.avi", gesture, UniformSegmentSampler(8)),
        ("DIVX AVI 320x240, 40 frames, uniform 32", "d.avi", gesture, UniformSegmentSampler(32)),
    ]
    print(f"{'clip, frames wanted':42}{'textbook ms':>12}{'this ms':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name, file, settings, sampler in cases:
            path = Path(folder) / file
            if not path.exists():
                render(path, **settings)
            if not np.array_equal(read_textbook(path, sampler), read_by_project(path, sampler)):
                raise SystemExit(f"{name}: the two ways give different frames")
            times = [
                (cpu_ms(read_textbook, path, sampler), cpu_ms(read_by_project, path, sampler)) for _ in range(repeats)
            ]
            textbook, project = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"{name:42}{textbook:12.1f}{project:9.1f}{textbook / project:6.1f}x")


if __name__ == "__main__":
    main()
