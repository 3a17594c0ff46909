"""What the configuration says reaches lists, samplers, transforms and loaders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.common.config import CfgNode

from tests.datasets.media import write_video
from timesformer.config import load_config, unread_keys
from timesformer.config.defaults import get_cfg, set_value
from timesformer.datasets import build, caching
from timesformer.datasets.mixing import ClipMixer
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.datasets.video_dataset import SampleKey
from timesformer.utils.errors import ConfigError, DataListError
from timesformer.utils.registry import DATASETS
from timesformer.video.augment import Appearance, Geometry
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.frame_samplers import (
    RandomSegmentSampler,
    RandomSpanSampler,
    ShuffledFrames,
    Timing,
    UniformSegmentSampler,
    UniformSpanSampler,
)
from timesformer.video.transforms import EvalTransform, TrainTransform

SMALL_CROPS = ["DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"]


def config(**values: Any) -> CfgNode:
    """The defaults with small sizes, and `DATA__NUM_FRAMES=4` for DATA.NUM_FRAMES."""
    cfg = get_cfg()
    small = {
        "DATA.NUM_FRAMES": 4,
        "DATA.TRAIN_CROP_SIZE": [32, 48],
        "DATA.TEST_CROP_SIZE": 32,
        "DATA.TRAIN_JITTER_SCALES": [40, 48],
        "MODEL.NUM_CLASSES": 2,
        "DATA_LOADER.NUM_WORKERS": 0,
    }
    for name, value in (small | {name.replace("__", "."): value for name, value in values.items()}).items():
        set_value(cfg, name, value)
    cfg.freeze()
    return cfg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of five videos; one more of the training list and two more of the test list are not there."""
    folder = tmp_path_factory.mktemp("videos")
    lines = [f"{write_video(folder / f'{i}.mp4', num_frames=30 + 10 * i).name} {i % 2}\n" for i in range(5)]
    (folder / "train.csv").write_text("".join([*lines, "gone.mp4 1\n"]))
    (folder / "val.csv").write_text("".join(lines))
    (folder / "test.csv").write_text("".join([*lines, "gone.mp4 1\n", "lost.mp4 0\n"]))
    return folder


@pytest.fixture(scope="module")
def videos(folder: Path) -> VideoList:
    return build.load_list(config(DATA__PATH_TO_DATA_DIR=str(folder)), "val")


# ---------------------------------------------------------------- lists


def test_every_dataset_is_registered() -> None:
    assert set(DATASETS.names()) >= {"kinetics", "howto100m", "ssv2", "muwiges", "folder", "gestures"}


def test_missing_files_leave_the_training_list_and_stay_in_the_others(folder: Path) -> None:
    cfg = config(DATA__PATH_TO_DATA_DIR=str(folder), DATA__MAX_FAILED_FRACTION=0.2)
    for split, testing, kept, missing in (
        ("train", False, 5, 1),
        ("train", True, 6, 1),
        ("val", False, 5, 0),
        ("test", False, 7, 2),
    ):
        videos = build.load_list(cfg, split, testing=testing)
        assert len(videos.records) == kept
        warned = [line for line in videos.warnings if "do not exist" in line]
        assert len(warned) == bool(missing)
        if missing:
            assert f"{missing} of the {5 + missing} videos of the {split} list do not exist" in warned[0]
            assert f"{split}.csv:6" in warned[0] and "gone.mp4" in warned[0]


def test_too_many_missing_files_stop_a_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"(?s)1 of the 6 .*train\.csv:6.*MAX_FAILED_FRACTION 0\.1 allows"):
        build.load_list(config(DATA__PATH_TO_DATA_DIR=str(folder)), "train")
    (tmp_path / "test.csv").write_text("gone.mp4 1\nlost.mp4 0\n")
    with pytest.raises(DataListError, match="2 of the 2 videos of the test list do not exist"):
        build.load_list(config(DATA__PATH_TO_DATA_DIR=str(tmp_path)), "test")


def test_the_test_list_is_of_the_test_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def from_config(self, cfg: CfgNode, split: str) -> Named:
            return self

        def load(self) -> VideoList:
            return VideoList([], class_names=[self.name])

    monkeypatch.setattr(DATASETS, "get", Named)
    cfg = config(TRAIN__DATASET="ours", TEST__DATASET="theirs")
    names = [build.load_list(cfg, split).class_names[0] for split in ("train", "val", "test")]
    assert names == ["ours", "ours", "theirs"]
    assert build.load_list(cfg, "val", testing=True).class_names == ["theirs"]


# ---------------------------------------------------------------- samplers and transforms


@pytest.mark.parametrize(
    ("rate", "training", "num_clips", "expected"),
    [
        (32, True, 1, RandomSpanSampler(4, 32, 30.0)),
        (32, False, 3, UniformSpanSampler(4, 32, 30.0, 3)),
        (32, False, "auto", UniformSpanSampler(4, 32, 30.0, "auto")),
        ("auto", True, 1, RandomSegmentSampler(4)),
        ("auto", False, 3, UniformSegmentSampler(4, 3)),
        ("auto", False, "auto", UniformSegmentSampler(4, 1)),
    ],
)
def test_frame_samplers(rate: int | str, training: bool, num_clips: Any, expected: Any) -> None:
    cfg = config(DATA__SAMPLING_RATE=rate)
    assert ClipSpec.from_config(cfg).frame_sampler(training=training, num_clips=num_clips) == expected
    shuffled = config(DATA__SAMPLING_RATE=rate, DATA__SHUFFLE_FRAMES=True)
    sampler = ClipSpec.from_config(shuffled).frame_sampler(training=training, num_clips=num_clips)
    assert sampler == ShuffledFrames(expected)


def test_the_training_transform_is_as_configured(videos: VideoList) -> None:
    cfg = config(
        DATA__RANDOM_FLIP=True,
        DATA__FLIP_LABEL_MAP=[[0, 1], [4, 5]],
        DATA__INV_UNIFORM_SAMPLE=True,
        DATA__MEAN=[0.1, 0.2, 0.4],
        DATA__CHANNEL_ORDER="bgr",
        RNG_SEED=11,
    )
    dataset = build.build_train_dataset(cfg, videos)
    transform = dataset.transform
    assert isinstance(transform, TrainTransform) and dataset.training and dataset.seed == 11
    assert (transform.crop_size, transform.jitter_scales) == ((32, 48), (40, 48))
    assert transform.flip and transform.inverse_uniform and transform.crop_mode == "crop"
    assert transform.fill == [102, 51, 26]  # MEAN is in the model's order, the transform sees RGB
    assert dataset.flip_label_map == {0: 1, 1: 0, 4: 5, 5: 4} and not dataset.flip_only_mapped


def test_the_flip_map_takes_the_names_of_the_list(videos: VideoList) -> None:
    named = VideoList(videos.records, ["left", "right", "star"])
    pairs = [["left", "right"], ["star", "star"]]
    cfg = config(DATA__RANDOM_FLIP=True, DATA__FLIP_LABEL_MAP=pairs, DATA__FLIP_ONLY_MAPPED=True)
    dataset = build.build_train_dataset(cfg, named)
    assert dataset.flip_label_map == {0: 1, 1: 0, 2: 2} and dataset.flip_only_mapped


def test_validation_sees_one_centre_view_and_the_test_all_of_them(videos: VideoList) -> None:
    cfg = config(TEST__NUM_ENSEMBLE_VIEWS=2, TEST__NUM_SPATIAL_CROPS=3)
    for views, num_clips, num_crops in ((Views(), 1, 1), (Views.from_config(cfg), 2, 3)):
        dataset = build.build_eval_dataset(cfg, videos, views=views)
        assert isinstance(dataset.transform, EvalTransform) and not dataset.training
        assert dataset.frame_sampler == UniformSpanSampler(4, 8, 30.0, num_clips)
        assert (dataset.transform.num_crops, dataset.transform.crop_size) == (num_crops, (32, 32))


def test_only_keys_with_an_effect_are_read(videos: VideoList) -> None:
    unused = ["DATA.TARGET_FPS", "DATA.INV_UNIFORM_SAMPLE", "DATA.TRAIN_JITTER_SCALES"]
    words = [*zip(unused, ("15", "True", "[40,48]"), strict=True)]
    flat = [word for pair in words for word in pair]
    for mode, left in (("full", unused), ("crop", [])):
        used = ["DATA.CROP_MODE", mode, "DATA.SAMPLING_RATE", "auto" if mode == "full" else "4"]
        loaded = load_config(None, [*flat, *used, "TEST.NUM_SPATIAL_CROPS", "1", *SMALL_CROPS])
        build.build_train_dataset(loaded.cfg, videos)
        build.build_eval_dataset(loaded.cfg, videos, views=Views.from_config(loaded.cfg))
        unread = {line.split(" ")[0] for line in unread_keys(loaded)}
        assert unread & set(unused) == set(left)


def test_torchvision_is_imported_with_the_augmentations_only() -> None:
    code = (
        "import sys, timesformer.datasets.build as build\n"
        "from timesformer.config import load_config\n"
        "for words in ([], ['DATA.COLOR_JITTER', '0.4']):\n"
        "    build.build_train_dataset(load_config(None, words).cfg, build.VideoList([]))\n"
        "    print('torchvision' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["False", "True"]


# ---------------------------------------------------------------- loaders


def test_training_batches(videos: VideoList) -> None:
    cfg = config(GLOBAL_BATCH_SIZE=4, TRAIN__BATCH_SIZE=2)
    loader = build.build_train_loader(cfg, videos)
    shapes = [[batch.clips.shape for batch in batches if batch.clips is not None] for _, batches in loader]
    assert shapes == [[(2, 3, 4, 32, 48)] * 2, [(1, 3, 4, 32, 48)]]


def test_a_batch_size_is_of_a_node(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(GLOBAL_BATCH_SIZE=64, TRAIN__BATCH_SIZE=24, TEST__BATCH_SIZE=8)
    sampler = build.build_train_loader(cfg, videos, rank=5, world_size=8, local_world_size=4).sampler
    assert (sampler.global_batch, sampler.micro_batch, sampler.rank, sampler.world_size) == (64, 6, 5, 8)
    assert build.build_train_loader(cfg, videos, world_size=64, local_world_size=32).sampler.micro_batch == 1
    auto = {"TRAIN__BATCH_SIZE": "auto", "NUM_GPUS": 0}
    for settings, size in (({"GLOBAL_BATCH_SIZE": 40}, 5), ({}, 8), ({"GLOBAL_BATCH_SIZE": 256}, 16)):
        loader = build.build_train_loader(config(**auto, **settings), videos, world_size=8, local_world_size=4)
        assert loader.sampler.micro_batch == size
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    big = config(TRAIN__BATCH_SIZE="auto", GLOBAL_BATCH_SIZE=10**6)
    assert build.clips_per_pass(big, 2**20, 8, 8) == 128
    for mixup, unit in ((False, 1), (True, 2)):
        assert build.build_train_loader(config(MIXUP__ENABLED=mixup), videos).sampler.unit == unit


@pytest.mark.parametrize(
    ("values", "views", "expected"),
    [
        ({}, False, [8, 4]),
        ({}, True, [2] * 6),  # 8 views hold 2 videos of 3
        ({"DATA__CROP_MODE": "full"}, True, [8, 4]),
        ({"TEST__NUM_ENSEMBLE_VIEWS": 10}, True, [1] * 12),
        ({"TEST__NUM_ENSEMBLE_VIEWS": "auto"}, True, [1] * 12),
    ],
)
def test_eval_batches_hold_as_many_videos_as_views_fit(
    videos: VideoList, values: dict[str, Any], views: bool, expected: list[int]
) -> None:
    many = VideoList((videos.records * 3)[:12])
    cfg = config(TEST__BATCH_SIZE=8, **values)
    loader = build.build_eval_loader(cfg, many, views=Views.from_config(cfg) if views else Views())
    assert [len(batch.indices) for batch in loader] == expected


def test_the_clips_of_a_long_video_cover_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", num_frames=100)
    videos = VideoList([VideoRecord(str(path), 0, "test.csv:1")])
    cfg = config(TEST__NUM_ENSEMBLE_VIEWS="auto", TEST__NUM_SPATIAL_CROPS=1)  # clips of 32 frames
    (batch,) = build.build_eval_loader(cfg, videos, views=Views.from_config(cfg))
    assert batch.views_per_video == [4] and batch.clips is not None and batch.clips.dtype == torch.uint8


def test_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "available_cpus", lambda: 12)
    assert [build.num_workers("auto", processes, on_gpu=True) for processes in (1, 2, 4, 16)] == [11, 5, 2, 0]
    assert [build.num_workers("auto", processes, on_gpu=False) for processes in (1, 2, 16)] == [3, 1, 0]
    assert [build.num_workers("auto", 4, on_gpu=False, num_threads=threads) for threads in (1, 2, 3)] == [1, 1, 0]
    assert build.num_workers("auto", 1, on_gpu=False, num_threads=1) == 3
    assert build.num_workers("auto", 12, on_gpu=True) == 1
    assert build.num_workers(0, 1, on_gpu=True) == 0 and build.num_workers(20, 4, on_gpu=False) == 20


def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_pins_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinning makes a context on the GPU, hundreds of megabytes there and seconds."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert [build._worker_settings(config(NUM_GPUS=n), 1)["pin_memory"] for n in (0, "auto")] == [False, True]


def test_mixing() -> None:
    assert build.build_mixer(config()) is None
    mixer = build.build_mixer(config(MIXUP__ENABLED=True, MIXUP__PROB=0.5))
    assert isinstance(mixer, ClipMixer) and mixer.prob == 0.5


# ---------------------------------------------------------------- cache and limits


def test_augmentation_comes_from_its_keys_and_the_cache_leaves_room_for_it(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"DATA__PATH_TO_DATA_DIR": str(folder), "DATA__PATH_PREFIX": str(folder)}
    settings |= {"DATA_LOADER__CACHE": "disk", "DATA_LOADER__CACHE_DIR": str(tmp_path), "DATA__CROP_MODE": "full"}
    drawn = {"AUG__SHIFT": 0.1, "AUG__ZOOM": [0.5, 1.25], "AUG__ROTATION": 5.0, "AUG__PERSPECTIVE": 0.02}
    drawn |= {"AUG__GAMMA": 0.3, "AUG__GRAY_PROB": 0.2, "AUG__BLUR": 1.0, "AUG__NOISE": 0.05, "AUG__JPEG_QUALITY": 50}
    drawn |= {"AUG__TRIM": 0.1, "AUG__SPEED": 0.3, "DATA__SAMPLING_RATE": "auto"}
    videos = build.load_list(config(**settings), "val")
    plain, augmented = (build.build_train_dataset(config(**settings, **more), videos) for more in ({}, drawn))
    assert not plain.transform.geometry and not plain.transform.appearance and plain.timing == Timing()
    assert augmented.transform.geometry == Geometry(shift=0.1, zoom=(0.5, 1.25), rotation=5.0, perspective=0.02)
    look = {"gamma": 0.3, "gray_prob": 0.2, "blur": 1.0, "noise": 0.05, "jpeg_quality": 50}
    assert augmented.transform.appearance == Appearance(**look) and augmented.timing == Timing(trim=0.1, speed=0.3)
    assert plain.cache.stored_size((480, 640)) == (32, 48) and augmented.cache.stored_size((480, 640)) == (40, 60)
    assert plain.cache.stored_size.is_exact((480, 640)) and not augmented.cache.stored_size.is_exact((480, 640))


def test_the_cache_is_announced_shared_and_limited(
    folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"DATA__PATH_TO_DATA_DIR": str(folder), "DATA__PATH_PREFIX": str(folder)}
    settings |= {"DATA_LOADER__CACHE": "disk", "DATA_LOADER__CACHE_DIR": str(tmp_path), "DATA_LOADER__TIMEOUT": 60.0}
    cfg = config(**settings)
    assert build.build_train_dataset(config(), VideoList([])).cache is None
    videos = build.load_list(cfg, "val")
    caplog.set_level("INFO", logger="timesformer")
    train, plain = build.build_train_dataset(cfg, videos), build.build_train_dataset(config(), videos)
    tested = build.build_eval_dataset(cfg, videos, views=Views.from_config(cfg))
    for dataset in (train, tested):
        assert dataset.cache is not None and dataset.cache.folder == tmp_path
        assert [dataset[SampleKey(0, 0, index)].views is not None for index in range(5)] == [True] * 5
    assert f"DATA_LOADER.CACHE disk: 5 videos, 0.00 GB of frames in {tmp_path}" in caplog.text
    assert len(list(tmp_path.glob("*.frames"))) == 10  # every frame for training, those of the views for the test
    one, two = train[SampleKey(3, 0, 4)].views, plain[SampleKey(3, 0, 4)].views
    assert one is not None and two is not None and torch.equal(one, two)  # 48 x 64 is not above the largest scale
    assert "not exactly" not in caplog.text
    build.build_train_dataset(config(**settings, DATA__TRAIN_JITTER_SCALES=[40, 44]), videos)
    assert "5 of the videos that were opened are larger than the largest scale of a clip (DATA.TRAIN_JIT" in caplog.text
    with pytest.raises(ConfigError, match=r"more than DATA_LOADER.CACHE_GB 0. Type DATA_LOADER.CACHE_GB 1, or"):
        build.build_train_dataset(config(**settings, DATA_LOADER__CACHE_GB=0.0), videos)


def test_by_default_frames_that_fit_are_kept_in_memory_and_change_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(caching, "memory_folder", lambda run: tmp_path)
    monkeypatch.setattr(caching, "free_shared_memory", lambda: 10**8)
    caplog.set_level("INFO", logger="timesformer")
    settings: dict[str, Any] = {"DATA__PATH_TO_DATA_DIR": str(folder), "DATA__PATH_PREFIX": str(folder)}
    settings |= {"DATA__TRAIN_JITTER_SCALES": [40, 44]}  # a small cache would scale these frames twice
    cfg, plain_cfg = config(**settings), config(**settings, DATA_LOADER__CACHE="none")
    videos = build.load_list(cfg, "val")
    kept, plain = build.build_train_dataset(cfg, videos), build.build_train_dataset(plain_cfg, videos)
    assert "DATA_LOADER.CACHE auto is memory: 5 videos, 0.00 GB of frames, and 0.03 GB may be used" in caplog.text
    for epoch in range(2):
        one, two = (dataset[SampleKey(epoch, 0, 4)].views for dataset in (kept, plain))
        assert one is not None and two is not None and torch.equal(one, two)
    assert len(list(tmp_path.glob("*.frames"))) == 1

    views = Views()
    assert build.build_eval_dataset(cfg, videos, views=views, repeated=True).cache is not None
    assert build.build_eval_dataset(cfg, videos, views=views).cache is None  # read once
    assert build.build_train_dataset(config(**settings, SOLVER__MAX_EPOCH=1), videos).cache is None
    for less in ({"DATA_LOADER__CACHE_GB": 0.0}, {}):
        monkeypatch.setattr(caching, "free_shared_memory", lambda less=less: 10**8 if less else 10**5)
        caplog.clear()
        assert build.build_train_dataset(config(**settings, **less), videos).cache is None
        assert "DATA_LOADER.CACHE auto is none: 5 videos, 0.00 GB of frames, and 0.00 GB may be used" in caplog.text


def test_the_default_cache_is_none_where_shared_memory_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ConfigError("the lock is held")

    monkeypatch.setattr(caching, "remove_abandoned", fails)
    monkeypatch.setattr(caching, "free_shared_memory", lambda: 10**8)
    cfg = config(DATA__PATH_TO_DATA_DIR=str(folder), DATA__PATH_PREFIX=str(folder))
    assert build.build_train_dataset(cfg, build.load_list(cfg, "val")).cache is None


def test_batches_take_the_shared_memory_before_the_default_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"DATA__PATH_TO_DATA_DIR": str(folder), "DATA__PATH_PREFIX": str(folder)}
    cfg = config(**settings)

    def check(needed: int, pending: int, what: str) -> None:
        if pending:
            raise ConfigError("both do not fit")

    monkeypatch.setattr(caching, "free_shared_memory", lambda: 10**8)
    monkeypatch.setattr(build, "check_shared_memory", check)
    videos = build.load_list(cfg, "val")
    assert build.build_train_loader(cfg, videos).dataset.cache is None
