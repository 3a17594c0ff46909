"""Compares the CPU time of reading a clip's frames with the textbook way's and other libraries', in every codec.

The textbook way decodes the file up to the end of the clip, converts every frame to RGB and keeps the few that are
wanted. Videos are encoded on the spot; their pictures are drifting texture with noise, which is hard to compress:
those of a real film are better. Runs take turns in an order drawn each time, as the next way bears what one leaves in
caches and heap. "new" is a file that the process does not know, "again" one that it has read before, as in every epoch
but the first, "cached" is DATA_LOADER.CACHE. torchcodec and decord are measured where they are installed (torchcodec
needs FFmpeg's libraries); "!" marks a way that gives other frames.

    python -m benchmarks.reading --repeats 15 --film my_film.mp4      a video of 10 s
    python -m benchmarks.reading --guard                              a clip from a decoding process of its own
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
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from timesformer.datasets.cache import OWN_SIZE, FrameCache
from timesformer.datasets.guarded import GuardedCall
from timesformer.datasets.records import VideoRecord
from timesformer.video.frame_samplers import FrameSampler, UniformSegmentSampler, UniformSpanSampler
from timesformer.video.readers import open_video

Way: TypeAlias = Callable[[Path, FrameSampler], np.ndarray]  # -> (T, H, W, 3)
MAX_DIFFERENCE = 6.0  # of grey levels, mean over a clip: conversions to RGB differ, other frames of these films more


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


def encode(
    path: Path, frames: Iterator[av.VideoFrame], *, fps: int, codec: str, gop: int, options: dict[str, str]
) -> None:
    """Writes a video; the ending of `path` chooses the container."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
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
    return _decode_all(path, sampler, lambda index, wanted: True)


def read_pyav(path: Path, sampler: FrameSampler) -> np.ndarray:
    """The same by somebody who converts only what is wanted."""
    return _decode_all(path, sampler, lambda index, wanted: index in wanted)


def _decode_all(path: Path, sampler: FrameSampler, converts: Callable[[int, Any], bool]) -> np.ndarray:
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        stream.codec_context.thread_count = 1
        num_frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        if not stream.frames:  # a container that does not say how many there are
            container.seek(0)
        wanted = sampler(num_frames, float(stream.average_rate), None)[0]
        images, needed = {}, set(wanted.tolist())
        for i, frame in enumerate(container.decode(stream)):
            if converts(i, needed):
                images[i] = frame.to_ndarray(format="rgb24")
            if i == wanted[-1]:
                break
    return np.stack([images[i] for i in wanted.tolist()])


def read_again(path: Path, sampler: FrameSampler) -> np.ndarray:
    """This project's reader, which reads only what is wanted, from a file that it knows."""
    with open_video(str(path)) as reader:
        return reader.read(sampler(reader.info.num_frames, reader.info.fps, None)[0])


def read_new(path: Path, sampler: FrameSampler) -> np.ndarray:
    """The same from a file that it does not know: one that has just changed."""
    os.utime(path)
    return read_again(path, sampler)


def read_cached(path: Path, sampler: FrameSampler) -> np.ndarray:
    """Takes what is wanted from stored frames, or stores them."""
    cache = FrameCache(path.parent, OWN_SIZE, all_frames=True)
    with cache.open(VideoRecord(str(path), 0, ""), lambda: open_video(str(path))) as reader:
        return reader.read(sampler(reader.info.num_frames, reader.info.fps, None)[0])


def read_torchcodec(path: Path, sampler: FrameSampler) -> np.ndarray:
    """Its exact mode, one thread."""
    from torchcodec.decoders import VideoDecoder

    decoder: Any = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
    wanted = sampler(len(decoder), decoder.metadata.average_fps, None)[0]
    return np.asarray(decoder.get_frames_at(wanted.tolist()).data)


def read_decord(path: Path, sampler: FrameSampler) -> np.ndarray:
    """One thread."""
    from decord import VideoReader

    reader = VideoReader(str(path), num_threads=1)
    return np.asarray(reader.get_batch(sampler(len(reader), reader.get_avg_fps(), None)[0].tolist()).asnumpy())


def read_opencv(path: Path, sampler: FrameSampler) -> np.ndarray:
    """From the first frame on, since its seeking is not exact; only what is wanted is converted."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted = sampler(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS), None)[0].tolist()
    images = {}
    for index in range(wanted[-1] + 1):
        capture.grab()
        if index in wanted:
            images[index] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([images[index] for index in wanted])


OWN: dict[str, Way] = {"new": read_new, "again": read_again, "cached": read_cached}
OTHERS: dict[str, Way] = {
    "textbook": read_textbook, "PyAV": read_pyav, "torchcodec": read_torchcodec, "decord": read_decord,
    "OpenCV": read_opencv,
}  # fmt: skip


def cases() -> Iterator[tuple[str, str, dict[str, Any], FrameSampler]]:
    """A title, the name of the file, how it is encoded, and the frames that are wanted."""
    kinetics, codecs = UniformSpanSampler(8, 32, 30), {
        "HEVC": ("libx265", ".mp4", {"x265-params": "log-level=error"}),
        "VP9": ("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "8"}),
        "AV1": ("libsvtav1", ".mp4", {"preset": "10"}),
    }  # fmt: skip
    wide = {"size": (340, 256), "num_frames": 300, "fps": 30, "codec": "libx264", "options": {}}
    for gop in (250, 12, 1):
        yield f"H.264 340x256, 10 s, GOP {gop}, 8x32", f"{gop}.mp4", wide | {"gop": gop}, kinetics
    yield "the first, 96x4", "250.mp4", wide | {"gop": 250}, UniformSpanSampler(96, 4, 30)
    for name, (codec, ending, options) in codecs.items():
        how = wide | {"gop": 250, "codec": codec, "options": options}
        yield f"{name} 340x256, 10 s, GOP 250, 8x32", f"{name}{ending}", how, kinetics
    gesture = {"size": (320, 240), "num_frames": 40, "fps": 15, "codec": "mpeg4", "gop": 12, "options": {}}
    for number in (8, 32):
        title = f"MPEG-4 AVI 320x240, 40 frames, uniform {number}"
        yield title, "gesture.avi", gesture, UniformSegmentSampler(number)


def compare(path: Path, sampler: FrameSampler, repeats: int) -> dict[str, str]:
    """By way, its median of CPU milliseconds; others' also over those of a new file."""
    expected, ways, marks = read_textbook(path, sampler), dict(OWN), {}
    for name, read in OTHERS.items():
        try:
            found = read(path, sampler)
        except Exception:  # not installed, or no decoder for this codec: each library has errors of its own
            continue
        ways[name] = read
        difference = np.abs(found.astype(int) - expected).mean() if found.shape == expected.shape else np.inf
        marks[name] = "" if difference <= MAX_DIFFERENCE else " !"
    for name, read in OWN.items():
        if not np.array_equal(read(path, sampler), expected):
            raise SystemExit(f"{path.name}: {name} gives other frames than the textbook way")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name in random.sample(list(ways), len(ways)):
            if name == "cached":
                read_cached(path, sampler)  # the file may have changed
            start = time.process_time()
            ways[name](path, sampler)
            times[name].append(1000 * (time.process_time() - start))
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratios = {name: f"{medians[name] / medians['new']:.2f}x{mark}" for name, mark in marks.items()}
    return {name: f"{medians[name]:.1f}" for name in OWN} | ratios


def clip_or_time(num_frames: int) -> np.ndarray | float:
    """A clip at 224x224; without frames the CPU time of this process, in seconds."""
    return np.full((num_frames, 224, 224, 3), 7, np.uint8) if num_frames else time.process_time()


def compare_guarded(repeats: int) -> None:
    """Prints the CPU time of a clip that another process answers with, of one made here, and of a copy of it."""
    guarded: Any = GuardedCall(clip_or_time, timeout_sec=60.0)
    print("| a clip at 224, CPU ms | plain | guarded | a copy |\n|---|---|---|---|")
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
        print(f"| {num_frames} frames | {' | '.join(f'{statistics.median(each):.2f}' for each in times.values())} |")
    guarded.close()


def main(argv: list[str] | None = None) -> None:
    """Encodes, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each way; the median counts")
    parser.add_argument("--film", help="a video of 10 s whose pictures are used")
    parser.add_argument("--guard", action="store_true", help="measure decoding processes instead")
    args = parser.parse_args(argv)
    if args.guard:
        compare_guarded(args.repeats)
        return
    columns = [*OWN, *OTHERS]
    print(f"| clip, frames wanted | {', ms | '.join(OWN)}, ms | {' : new | '.join(OTHERS)} : new |")
    print("|---" * (1 + len(columns)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for title, file, settings, sampler in cases():
            path, how = Path(folder) / file, dict(settings)
            pictures = how.pop("size"), how.pop("num_frames")
            if not path.exists():
                encode(path, film(args.film, *pictures) if args.film else texture(*pictures), **how)
            found = compare(path, sampler, args.repeats)
            print(f"| {title} | {' | '.join(found.get(name, '') for name in columns)} |", flush=True)


if __name__ == "__main__":
    main()
