"""Compares the CPU time of reading a clip's frames with the textbook way's, on videos encoded on the spot.

The textbook way decodes the file up to the end of the clip, converts every frame to RGB and keeps the few
that are wanted. Prints medians of runs interleaved in an order drawn each time, as the next way bears what
one leaves in caches and heap; trust the ratios, not the milliseconds. "again" is reading a file that the process
has read before, as every epoch but the first does; "cached" is DATA_LOADER.CACHE.
Before that, what a clip costs that comes from a decoding process of its own (`datasets/guarded.py`), in both processes.
The pictures are drifting texture with noise, which is hard to compress; those of a real film are better:

    python benchmarks/reading.py --repeats 15 --film my_clip.mp4
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

from timesformer.datasets.cache import OWN_SIZE, FrameCache
from timesformer.datasets.guarded import GuardedCall
from timesformer.datasets.records import VideoRecord
from timesformer.video.frame_samplers import FrameSampler, UniformSegmentSampler, UniformSpanSampler
from timesformer.video.readers import open_video


def texture(size: tuple[int, int], num_frames: int) -> Iterator[av.VideoFrame]:
    """Drifting texture with camera noise, width and height as in `size`."""
    width, height = size
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (height // 16 + 8, width // 16 + 8, 3)).astype(np.uint8)
    scene = scene.repeat(16, axis=0).repeat(16, axis=1)
    for i in range(num_frames):
        x, y = int(40 + 40 * np.sin(i / 20)), int(40 + 40 * np.cos(i / 17))
        image = scene[y : y + height, x : x + width] // 2 + generator.integers(0, 24, (height, width, 1))
        yield av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")


def film(path: str, size: tuple[int, int], num_frames: int) -> Iterator[av.VideoFrame]:
    """The first frames of a video, scaled to width and height."""
    width, height = size
    with av.open(path) as container:
        for frame in islice(container.decode(video=0), num_frames):
            yield frame.reformat(width=width, height=height, format="yuv420p")


def encode(path: Path, frames: Iterator[av.VideoFrame], *, fps: int, codec: str, gop: int) -> None:
    """Writes a video; the ending of `path` chooses the container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        if codec == "mpeg4":
            stream.codec_context.codec_tag = "DIVX"
        for i, frame in enumerate(frames):
            if not i:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base, frame.pict_type = i, Fraction(1, fps), PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


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
    """Reads only what is wanted, from a file that it knows."""
    with open_video(str(path)) as reader:
        return reader.read(sampler(reader.info.num_frames, reader.info.fps, None)[0])


def read_new(path: Path, sampler: FrameSampler) -> np.ndarray:
    """The same from a file that it does not know: one that has just changed."""
    os.utime(path)
    return read_by_project(path, sampler)


def read_cached(path: Path, sampler: FrameSampler) -> np.ndarray:
    """Takes what is wanted from stored frames, or stores them."""
    cache = FrameCache(path.parent, OWN_SIZE, all_frames=True)
    with cache.open(VideoRecord(str(path), 0, ""), lambda: open_video(str(path))) as reader:
        return reader.read(sampler(reader.info.num_frames, reader.info.fps, None)[0])


WAYS: dict[str, Callable[[Path, FrameSampler], np.ndarray]] = {
    "textbook": read_textbook,
    "new": read_new,
    "again": read_by_project,
    "cached": read_cached,
}


def clip_or_time(num_frames: int) -> np.ndarray | float:
    """A clip at 224x224; without frames the CPU time of this process, in seconds."""
    return np.full((num_frames, 224, 224, 3), 7, np.uint8) if num_frames else time.process_time()


def compare_guarded(repeats: int) -> None:
    """Prints the CPU time of a clip that another process answers with, of one made here, and of a copy of it."""
    guarded = GuardedCall(clip_or_time, timeout_sec=60.0)
    print(f"{'a clip at 224, CPU ms':42}{'plain':>16}{'guarded':>16}{'a copy':>16}")
    for num_frames in (8, 32, 96):
        clip, times = guarded(num_frames), {"plain": [], "guarded": [], "copy": []}  # type: ignore[var-annotated]
        for _ in range(repeats):
            start, theirs = time.process_time(), guarded(0)
            guarded(num_frames)
            theirs, middle = guarded(0) - theirs, time.process_time()  # with two calls more, of some 0.05 ms
            clip_or_time(num_frames)
            plain = time.process_time()
            clip.copy()
            spent = (plain - middle, middle - start + theirs, time.process_time() - plain)
            for each, seconds in zip(times.values(), spent, strict=True):
                each.append(1000 * seconds)
        print(f"{f'{num_frames} frames':42}{''.join(f'{statistics.median(each):16.2f}' for each in times.values())}")
    guarded.close()


def cpu_ms(read: Callable[[Path, FrameSampler], np.ndarray], path: Path, sampler: FrameSampler) -> float:
    """CPU time of one call of `read`, in milliseconds."""
    start = time.process_time()
    read(path, sampler)
    return 1000 * (time.process_time() - start)


def main() -> None:
    """Encodes, compares and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="runs of each way; the median counts")
    parser.add_argument("--film", help="a video of 10 s whose pictures are used")
    options = parser.parse_args()
    compare_guarded(options.repeats)
    clip = {"fps": 30, "codec": "libx264"}
    gesture = {"fps": 15, "codec": "mpeg4", "gop": 12}
    wide, small = ((340, 256), 300), ((320, 240), 40)
    kinetics = UniformSpanSampler(8, 32, 30)
    cases = [
        ("340x256, 10 s, GOP 250, 8x32", "a.mp4", wide, {**clip, "gop": 250}, kinetics),
        ("340x256, 10 s, GOP 12, 8x32", "b.mp4", wide, {**clip, "gop": 12}, kinetics),
        ("340x256, 10 s, all intra, 8x32", "c.mp4", wide, {**clip, "gop": 1}, kinetics),
        ("340x256, 10 s, GOP 250, 96x4", "a.mp4", wide, {**clip, "gop": 250}, UniformSpanSampler(96, 4, 30)),
        ("DIVX AVI 320x240, 40 frames, uniform 8", "d.avi", small, gesture, UniformSegmentSampler(8)),
        ("DIVX AVI 320x240, 40 frames, uniform 32", "d.avi", small, gesture, UniformSegmentSampler(32)),
    ]
    columns = "".join(f"{name:>16}" for name in WAYS)
    print(f"{'clip, frames wanted; ms and ratio':42}{columns}")
    with tempfile.TemporaryDirectory() as folder:
        for name, file, pictures, settings, sampler in cases:
            path = Path(folder) / file
            if not path.exists():
                encode(path, film(options.film, *pictures) if options.film else texture(*pictures), **settings)
            expected = read_textbook(path, sampler)
            for way, read in list(WAYS.items())[1:]:
                if not np.array_equal(expected, read(path, sampler)):
                    raise SystemExit(f"{name}: {way} gives other frames than the textbook way")
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.repeats):
                for way in random.sample(list(WAYS), len(WAYS)):
                    if way == "cached":
                        read_cached(path, sampler)  # the file may have changed
                    times[way].append(cpu_ms(WAYS[way], path, sampler))
            medians = {way: statistics.median(each) for way, each in times.items()}
            cells = "".join(f"{ms:9.1f}{medians['textbook'] / ms:6.1f}x" for ms in medians.values())
            print(f"{name:42}{cells}")


if __name__ == "__main__":
    main()
