"""Clips are the same with the cache as without, and what it holds is not decoded again."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.datasets.media import picture, write_video
from timesformer.datasets import cache_folders
from timesformer.datasets.cache import FrameCache, StoredSize
from timesformer.datasets.cache_folders import check_space, disk_folder, memory_folder
from timesformer.datasets.loader import EvalLoader, TrainLoader
from timesformer.datasets.opening import open_record
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import Batch, SampleKey, VideoDataset
from timesformer.utils.errors import ConfigError
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.frame_samplers import FrameSampler, UniformSegmentSampler
from timesformer.video.pyav_reader import PyAVReader

OWN_SIZE = StoredSize((48, 64), 48, whole=False, fixed=False)  # frames of 48x64 are stored as they are
ROOT = Path(__file__).parents[2]


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoRecord]:
    """Four videos of 64x48, with 20 to 32 frames."""
    paths = [write_video(tmp_path / f"{i}.mp4", num_frames=20 + 4 * i) for i in range(4)]
    return [VideoRecord(str(path), i % 2, f"list.csv:{i + 1}") for i, path in enumerate(paths)]


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    (tmp_path / "cache").mkdir()
    return FrameCache(tmp_path / "cache", OWN_SIZE, all_frames=True)


def train_set(videos: list[VideoRecord], cache: FrameCache | None, *, whole: bool = False) -> VideoDataset:
    spec = ClipSpec(
        num_frames=4,
        sampling_rate="auto",
        size=(32, 32),
        crop_mode="full" if whole else "crop",
        mean=(0.5, 0.5, 0.5),
    )
    augmentation = {
        "jitter_scales": (36, 44),
        "inverse_uniform": False,
        "flip": True,
        "auto_augment": "",
        "color_jitter": 0.0,
        "erase_prob": 0.0,
    }
    return VideoDataset(videos, spec=spec, augmentation=augmentation, training=True, cache=cache)


def eval_set(videos: list[VideoRecord], cache: FrameCache | None, sampler: FrameSampler | None = None) -> VideoDataset:
    spec = ClipSpec(num_frames=4, sampling_rate="auto", size=(32, 32))
    dataset = VideoDataset(videos, spec=spec, views=Views(num_clips=2, num_crops=3), cache=cache)
    dataset.frame_sampler = sampler or dataset.frame_sampler
    return dataset


def batches(dataset: VideoDataset, epoch: int, num_workers: int = 0) -> list[Batch]:
    loader = TrainLoader(dataset, global_batch=2, micro_batch=2, num_workers=num_workers)
    loader.set_epoch(epoch)
    return [batch for _, of_step in loader for batch in of_step]


def same(one: list[Batch], two: list[Batch]) -> bool:
    assert [replace(batch, clips=None) for batch in one] == [replace(batch, clips=None) for batch in two]
    return all(torch.equal(a.clips, b.clips) for a, b in zip(one, two, strict=True) if a.clips is not None)


def spoil(videos: list[VideoRecord]) -> None:
    """Make files undecodable in a way that neither size nor time of change shows."""
    for record in videos:
        status = os.stat(record.path)
        Path(record.path).write_bytes(bytes(status.st_size))
        os.utime(record.path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_after_the_first_epoch_nothing_is_decoded(
    videos: list[VideoRecord], cache: FrameCache, num_workers: int
) -> None:
    plain = [batches(train_set(videos, None), epoch) for epoch in range(3)]
    assert same(batches(train_set(videos, cache), 0, num_workers), plain[0])
    spoil(videos)
    for epoch in (1, 2):
        assert same(batches(train_set(videos, cache), epoch, num_workers), plain[epoch])


def test_an_evaluation_stores_only_what_it_shows(videos: list[VideoRecord], cache: FrameCache) -> None:
    cache = replace(cache, all_frames=False)
    plain = list(EvalLoader(eval_set(videos, None), videos_per_batch=3))
    assert same(list(EvalLoader(eval_set(videos, cache), videos_per_batch=3)), plain)
    for record in videos:
        entry = cache.load(record)
        assert entry is not None and len(entry.indices) == 8
    spoil(videos)
    assert same(list(EvalLoader(eval_set(videos, cache), videos_per_batch=3)), plain)


def test_frames_that_are_not_stored_are_decoded(videos: list[VideoRecord], cache: FrameCache) -> None:
    cache = replace(cache, all_frames=False)
    key = SampleKey(0, 0, 1)
    eval_set(videos, cache, UniformSegmentSampler(3))[key]
    plain, stored = (eval_set(videos, c, UniformSegmentSampler(6))[key].views for c in (None, cache))
    assert plain is not None and stored is not None and torch.equal(plain, stored)


def test_a_video_that_changed_is_decoded_again(videos: list[VideoRecord], cache: FrameCache) -> None:
    dataset, key = eval_set(videos, cache), SampleKey(0, 0, 0)
    before = dataset[key].views
    write_video(videos[0].path, frames=[picture(200 - i) for i in range(20)])
    after, plain = dataset[key].views, eval_set(videos, None)[key].views
    assert before is not None and after is not None and plain is not None
    assert torch.equal(after, plain) and not torch.equal(before, after)
    assert len(list(cache.folder.iterdir())) == 1


def test_other_settings_are_other_frames(videos: list[VideoRecord], cache: FrameCache) -> None:
    others = [
        cache,
        replace(cache, stored_size=replace(OWN_SIZE, short_side=36)),
        replace(cache, all_frames=False),
        replace(cache, all_frames=False, settings="two"),
    ]
    for each in others:
        train_set(videos, each)[SampleKey(0, 0, 0)]
    assert len(list(cache.folder.iterdir())) == len(others)


def damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if kind == "flip":
        data[middle] ^= 1
    elif kind == "zeroed tail":
        data[middle:] = bytes(len(data) - middle)
    elif kind == "zeroed frames":
        data[middle : middle + 4096] = bytes(4096)
    elif kind == "flip in the facts":
        data[data.rindex(b"fps") + 8] ^= 1
    elif kind == "cut":
        del data[middle:]
    else:
        data.clear()
    path.write_bytes(data)


KINDS = ("flip", "zeroed tail", "zeroed frames", "flip in the facts", "cut", "empty")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_frames", [True, False])
def test_a_damaged_file_is_reported_and_rebuilt(
    videos: list[VideoRecord], cache: FrameCache, all_frames: bool, kind: str
) -> None:
    cache = replace(cache, all_frames=all_frames)
    indices = np.arange(20)
    with cache.open(videos[0], lambda: open_record(videos[0], backend="pyav")) as reader:
        plain = reader.read(indices)
        assert reader.info.warnings == ()
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    damage(path, kind)
    with cache.open(videos[0], lambda: open_record(videos[0], backend="pyav")) as reader:
        assert np.array_equal(reader.read(indices), plain)
        (warning,) = reader.info.warnings
    assert warning.startswith("the file of its cached frames was damaged (")
    assert path.read_bytes() == whole
    with cache.open(videos[0], lambda: pytest.fail("decoded again")) as reader:
        assert np.array_equal(reader.read(indices), plain) and reader.info.warnings == ()


def test_a_damaged_file_is_a_warning_of_the_clip(videos: list[VideoRecord], cache: FrameCache) -> None:
    plain = batches(train_set(videos, None), 0)
    assert same(batches(train_set(videos, cache), 0), plain)
    for file in cache.folder.iterdir():
        damage(file, "zeroed tail")
    found = batches(train_set(videos, cache), 0, num_workers=1)
    warnings = [warning for batch in found for warning in batch.warnings]
    assert len(warnings) == 4 and all(": the file of its cached frames was damaged" in line for line in warnings)
    assert same([replace(batch, warnings=[]) for batch in found], plain)
    assert same(batches(train_set(videos, cache), 0), plain)


def test_a_file_of_an_earlier_version_is_replaced_without_a_word(videos: list[VideoRecord], cache: FrameCache) -> None:
    cache._file(videos[0]).write_bytes(b'{"stamp": "0", "info": {}, "places": null}\n' + bytes(1000))
    assert cache.load(videos[0]) is None
    assert same(batches(train_set(videos, cache), 0), batches(train_set(videos, None), 0))
    assert cache.load(videos[0]) is not None


def test_what_the_decoder_remarks_while_it_reads_is_stored(videos: list[VideoRecord], cache: FrameCache) -> None:
    class Remarks(PyAVReader):
        def read(self, indices: Any) -> np.ndarray:
            self.info = replace(self.info, warnings=("damaged",))
            return super().read(indices)

    for _ in range(2):
        with cache.open(videos[0], lambda: Remarks(videos[0].path)) as reader:
            reader.read([3])
            assert reader.info.warnings == ("damaged",)


def test_without_space_clips_are_decoded(
    videos: list[VideoRecord], cache: FrameCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timesformer.datasets.cache.os.replace", full)
    assert same(batches(train_set(videos, cache), 0), batches(train_set(videos, None), 0))
    assert list(cache.folder.iterdir()) == []


def test_damage_where_nothing_is_wanted_does_no_harm(tmp_path: Path, cache: FrameCache) -> None:
    files = [str(tmp_path / f"{i:02}.png") for i in range(12)]
    for i, file in enumerate(files):
        cv2.imwrite(file, picture(i))
    Path(files[11]).write_bytes(b"no picture")
    record = VideoRecord(str(tmp_path), 0, "list.csv:1", frames=tuple(files))
    plain, cached = (eval_set([record], c)[SampleKey(0, 0, 0)].views for c in (None, cache))
    assert plain is not None and cached is not None and torch.equal(plain, cached)
    assert list(cache.folder.iterdir()) == []


# ---------------------------------------------------------------- the stored size


@pytest.mark.parametrize(
    ("stored_size", "frame", "stored"),
    [
        (StoredSize((224, 224), 320, whole=False, fixed=False), (240, 320), (240, 320)),
        (StoredSize((224, 224), 320, whole=False, fixed=False), (720, 1280), (320, 568)),
        (StoredSize((224, 224), 0, whole=False, fixed=True), (720, 1280), (224, 398)),
        (StoredSize((224, 224), 256, whole=False, fixed=True), (256, 340), (256, 340)),
        (StoredSize((112, 112), 0, whole=True, fixed=True), (720, 1280), (112, 112)),
        (StoredSize((112, 112), 0, whole=True, fixed=True), (84, 96), (84, 96)),
    ],
)
def test_frames_are_stored_as_the_transform_scales_them_but_never_larger(
    stored_size: StoredSize, frame: tuple[int, int], stored: tuple[int, int]
) -> None:
    assert stored_size(frame) == stored == stored_size(stored)
    assert stored_size.is_exact(frame) == (stored_size.fixed or stored == frame)


@pytest.mark.parametrize("kind", ["three crops", "whole frames"])
def test_smaller_frames_of_one_scale_change_no_clip(videos: list[VideoRecord], cache: FrameCache, kind: str) -> None:
    whole = kind == "whole frames"
    small = replace(cache, stored_size=StoredSize((32, 32), 0, whole=whole, fixed=True))
    make = (lambda c: train_set(videos, c, whole=True)) if whole else (lambda c: eval_set(videos, c))
    for index in range(4):
        plain, stored = (make(c)[SampleKey(1, 0, index)].views for c in (None, small))
        assert plain is not None and stored is not None and torch.equal(plain, stored)
    entry = small.load(videos[0])
    assert entry is not None and entry.frames.shape == (20, 32, 32 if whole else 42, 3)


def test_random_scales_of_larger_frames_are_the_same_whether_stored_or_not(
    videos: list[VideoRecord], cache: FrameCache
) -> None:
    small = replace(cache, stored_size=StoredSize((32, 32), 44, whole=False, fixed=False))
    first, second = (batches(train_set(videos, small), 0) for _ in range(2))
    assert same(first, second)


# ---------------------------------------------------------------- space


def measure(cache: FrameCache, videos: list[VideoRecord]) -> Any:
    return cache.measure(videos, lambda record: open_record(record, backend="pyav"), lambda _, info: info.num_frames)


def test_the_size_is_reported_before_anything_is_decoded(videos: list[VideoRecord], cache: FrameCache) -> None:
    missing = VideoRecord("gone.mp4", 0, "list.csv:5")
    parts = [replace(videos[0], start_sec=0.1 * i) for i in range(3)]  # of one file
    expected = (20 + 24 + 28 + 32) * 48 * 64 * 3
    assert measure(cache, [*videos, *parts]).num_bytes == expected
    assert measure(cache, [*videos, missing]).summary.startswith("5 videos, ")
    assert measure(cache, videos).summary == "4 videos, 0.00 GB"
    batches(train_set(videos, cache), 0)
    assert expected < measure(cache, videos).stored_bytes < 1.05 * expected
    small = replace(cache, stored_size=replace(OWN_SIZE, short_side=36, crop_size=(32, 32)))
    assert measure(small, videos).num_inexact == 4


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the list, more than DATA_LOADER.CACHE_GB 2. Type DATA_LOADER.CACHE_GB 4,"):
        check_space(tmp_path, "the list", 3_000_000_000, 0, limit_gb=2)
    with pytest.raises(ConfigError, match=r"GB are free. Type DATA_LOADER.CACHE_DIR /a/folder/with/space, or"):
        check_space(tmp_path, "the list", 10**18, 0, limit_gb=1e12)
    check_space(tmp_path, "the list", 10**18, 10**18, limit_gb=1e12)


def test_the_memory_of_the_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folders, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(cache_folders, "free_memory", lambda: 10**6)
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match=r"0.00 GB are free. Type DATA_LOADER.CACHE disk"):
        check_space(tmp_path / "run", "the list", 10**6 + 1, 0, limit_gb=1)


def test_unfinished_files_are_removed_but_not_while_they_are_written(tmp_path: Path) -> None:
    for name, age in (("left.writing", 7200), ("now.writing", 0), ("whole.frames", 7200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    disk_folder(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"now.writing", "whole.frames"}


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Type DATA_LOADER.CACHE_DIR"):
        disk_folder(str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert disk_folder("") == tmp_path / "timesformer" / "frames"


def test_shared_memory_goes_with_the_last_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folders, "SHARED_MEMORY", tmp_path)
    code = (
        "import sys; from pathlib import Path; from timesformer.datasets import cache_folders as c\n"
        "c.SHARED_MEMORY = Path(sys.argv[1]); folder = c.memory_folder(sys.argv[2]); (folder / 'x').touch()\n"
        "print(folder, flush=True); input()"
    )

    def start(run: str) -> tuple[subprocess.Popen[str], Path]:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), run], cwd=ROOT, **pipes)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    (one, folder), (two, also), (killed, left) = start("run"), start("run"), start("other")
    assert folder == also != left
    killed.kill()
    killed.communicate()
    one.communicate("\n")
    assert folder.is_dir() and left.is_dir()
    monkeypatch.setattr(cache_folders, "_held", {})
    own = memory_folder("third")
    assert own.is_dir() and not left.exists() and folder.is_dir()
    (abandoned := tmp_path / f"{cache_folders._prefix()}gone").mkdir()
    cache_folders.remove_abandoned()
    assert own.is_dir() and not abandoned.exists() and folder.is_dir()
    two.communicate("\n")
    assert not folder.exists()
    cache_folders._leave(own, os.getpid())
    assert not own.exists()


def test_it_travels_to_processes(cache: FrameCache) -> None:
    assert pickle.loads(pickle.dumps(cache)) == cache


def test_stored_frames_are_not_handed_out_for_writing(videos: list[VideoRecord], cache: FrameCache) -> None:
    train_set(videos, cache)[SampleKey(0, 0, 0)]
    with cache.open(videos[0], lambda: pytest.fail("decoded again")) as reader:
        first = reader.read([3, 1, 3])
        first[:] = 0
        assert type(first) is np.ndarray and reader.read([1]).any()
        assert reader.info.num_frames == 20 and (reader.info.height, reader.info.width) == (48, 64)
