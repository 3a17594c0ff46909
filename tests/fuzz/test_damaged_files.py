"""Damaged checkpoints, caches and videos: never a raw error, never other numbers than a sound file without a word."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import nn

from tests.datasets.media import write_video
from tests.fuzz.damage import damaged
from timesformer.datasets.cache import FrameCache, StoredSize
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import open_record
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.checkpoint_writer import write_whole
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import CheckpointError, DamagedFileError, VideoReadError
from timesformer.video import pyav_reader
from timesformer.video.pyav_reader import PyAVReader
from timesformer.video.readers import open_video
from timesformer.weights.files import read_file
from timesformer.weights.layouts import read_weights
from timesformer.weights.save import save_weights

pytestmark = pytest.mark.slow

NUM_CHECKPOINTS, NUM_CACHES, NUM_VIDEOS = 500, 60, 60  # of each kind
VIDEOS: dict[str, dict[str, Any]] = {
    "a.mp4": {"bframes": 2},
    "b.mkv": {"bframes": 2},
    "c.webm": {"codec": "libvpx"},
    "d.avi": {"codec": "mpeg4"},
    "e.mov": {"codec": "mpeg4", "bframes": 2},
    "f.ts": {"bframes": 2},
    "g.mpg": {"codec": "mpeg2video"},
}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return one == two  # type: ignore[no-any-return]


# ---------------------------------------------------------------- checkpoints and weights


def test_checkpoints(tmp_path: Path) -> None:
    """Each is read as it was written, or proven damaged, and then the one before it is taken."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 8)).sum().backward()
    optimizer.step()
    content = {"format": 1, "model_state": model.state_dict(), "optimizer_state": optimizer.state_dict(), "step": 0}
    (tmp_path / "checkpoints").mkdir()
    older, newest = (checkpoints.checkpoint_path(tmp_path, checkpoints.Position(epoch)) for epoch in (1, 2))
    write_whole(content | {"epoch": 0, "cfg": "A: 1\n"}, older)
    write_whole(content | {"epoch": 1, "cfg": "A: 1\n"}, newest)
    expected, data = read_file(newest), newest.read_bytes()
    generator, outcomes = random.Random(0), Counter[str]()
    for _ in range(NUM_CHECKPOINTS):
        kind, changed = damaged(data, generator)
        newest.write_bytes(changed)
        found = checkpoints.read_newest(tmp_path)
        assert found is not None
        if found[0] == newest:
            assert same(found[1], expected), f"{kind}: other numbers without a word"
        outcomes[f"{kind} {found[0] == newest}"] += 1
    assert all(outcomes[f"{kind} False"] for kind in ("flip", "zeros", "noise", "cut")), outcomes


@pytest.mark.parametrize("form", ["safetensors", "pyth"])
def test_weights(tmp_path: Path, form: str) -> None:
    """Each file that `convert` writes is read as it was written, or refused."""
    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
    model = TimeSformer(**sizes, num_classes=3, num_frames=2)
    torch.save({"model_state": model.state_dict(), "class_names": ["a", "b", "c"]}, tmp_path / "first.pyth")
    path = tmp_path / f"w.{form}"
    save_weights(read_weights(tmp_path / "first.pyth"), path, to=form)
    whole, data, generator = read_weights(path), path.read_bytes(), random.Random(1)
    num_refused = 0
    for _ in range(NUM_CHECKPOINTS // 2):
        kind, changed = damaged(data, generator)
        path.write_bytes(changed)
        try:
            found = read_weights(path)
        except CheckpointError:
            num_refused += 1
            continue
        assert same(found.tensors, whole.tensors) and found.class_names == whole.class_names, kind
    assert num_refused > NUM_CHECKPOINTS // 8


def test_any_bytes_as_weights(tmp_path: Path) -> None:
    """Foreign headers with anything after them are refused in words."""
    generator = random.Random(2)
    for start in (b"PK\x03\x04", b"\x80\x02", b"\x40\0\0\0\0\0\0\0{", b"\xff\xff\xff\x05\0\0\0\0{", b""):
        for _ in range(NUM_CHECKPOINTS // 20):
            (tmp_path / "w").write_bytes(start + generator.randbytes(generator.randrange(400)))
            with pytest.raises(CheckpointError):
                read_file(tmp_path / "w")


def test_an_empty_checkpoint_is_damage(tmp_path: Path) -> None:
    (tmp_path / "w").touch()
    with pytest.raises(DamagedFileError):
        read_file(tmp_path / "w")


# ---------------------------------------------------------------- cached frames


@pytest.mark.parametrize("all_frames", [True, False])
def test_caches(tmp_path: Path, all_frames: bool) -> None:
    """A damaged cache gives the video's frames, with a warning where it was damaged, and is whole again."""
    record = VideoRecord(str(write_video(tmp_path / "a.mp4", num_frames=24)), 0, "list.csv:1")
    (tmp_path / "cache").mkdir()
    size = StoredSize((48, 64), 48, whole=False, fixed=False)
    cache = FrameCache(tmp_path / "cache", size, all_frames=all_frames)
    generator, indices = random.Random(3), [2, 7, 23]

    def read() -> tuple[np.ndarray, tuple[str, ...]]:
        with cache.open(record, lambda: open_record(record, backend="pyav")) as reader:
            return reader.read(indices), reader.info.warnings

    plain, _ = read()
    (path,) = cache.folder.iterdir()
    data, num_reported = path.read_bytes(), 0
    for _ in range(NUM_CACHES):
        path.write_bytes(damaged(data, generator)[1])
        found, warnings = read()
        assert np.array_equal(found, plain)
        num_reported += bool(warnings)
        assert not warnings or path.read_bytes() == data
    assert num_reported > NUM_CACHES // 10


# ---------------------------------------------------------------- videos


def plain_decode(path: Path) -> tuple[list[int | None], list[np.ndarray], bool]:
    """Time stamps and frames that a decode from the start gives, and whether it came to the end."""
    stamps, frames = [], []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                stamps.append(frame.pts)
                frames.append(frame.to_ndarray(format="rgb24"))
    except Exception:  # of many types, as of any damaged file
        return stamps, frames, False
    return stamps, frames, True


def read_video(path: Path, indices: list[int]) -> tuple[np.ndarray | str, tuple[str, ...]]:
    try:
        with open_video(str(path), backend="pyav") as reader:
            return reader.read(indices), reader.info.warnings
    except VideoReadError as error:
        return str(error), ()


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(tmp_path: Path, name: str) -> None:
    """Each opening gives the same; without a warning, frames are those of a plain decode.

    Some flipped bits say to the decoder that no other frame needs a frame. It reports nothing then, and passes over
    that frame where only later ones are wanted. Of the clips without a warning, at most one in fifty, or one, is so.
    """
    whole = write_video(tmp_path / name, num_frames=60, size=(96, 64), gop=15, **VIDEOS[name])
    data, generator, outcomes = whole.read_bytes(), random.Random(name), Counter[str]()
    path = tmp_path / f"damaged{whole.suffix}"
    for number in range(NUM_VIDEOS):
        kind, changed = damaged(data, generator)
        path.write_bytes(changed)
        indices = sorted(generator.sample(range(60), 4))
        pyav_reader._surveys.clear()
        first, again = (read_video(path, indices) for _ in range(2))
        assert np.array_equal(first[0], again[0]) and first[1] == again[1], (
            f"{number}, {kind}: a clip depends on what was read before"
        )
        if isinstance(first[0], str):
            assert str(path) in first[0]
            outcomes["refused"] += 1
        elif first[1]:
            outcomes["reported"] += 1
        else:
            outcomes["silent"] += 1
            outcomes["different"] += not is_plain(path, indices, first[0])
    assert outcomes["silent"] and outcomes["refused"], outcomes
    assert outcomes["different"] <= 1 + outcomes["silent"] // 50, outcomes


def is_plain(path: Path, indices: list[int], found: np.ndarray) -> bool:
    """Whether frames are those of a plain decode as far as it comes; by time stamp, for it leaves out damaged ones."""
    stamps, frames, complete = plain_decode(path)
    with PyAVReader(str(path)) as reader:
        survey = reader._survey
    names = survey.pts[indices].tolist() if survey.trusted else indices
    of_name = dict(zip(stamps, frames, strict=True)) if survey.trusted else dict(enumerate(frames))
    return all(
        np.array_equal(frame, of_name[name]) if name in of_name else not complete
        for frame, name in zip(found, names, strict=True)
    )
