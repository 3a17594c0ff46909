"""The wide gestures: classes that differ, fingertips in the frame, pictures that depend on seed and index alone."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from timesformer.config.defaults import get_cfg
from timesformer.config.load import load_config
from timesformer.datasets.build import load_list
from timesformer.datasets.cache import StoredSize
from timesformer.datasets.caching import build_cache
from timesformer.datasets.gestures import clips as wide_clips
from timesformer.datasets.gestures import hands, scenes
from timesformer.datasets.gestures.clips import EDGE, NUM_FRAMES, WideClip
from timesformer.datasets.gestures.strokes import CLASS_NAMES, POINTS, STROKES, Drawing
from timesformer.datasets.gestures.wide import WideGestures
from timesformer.datasets.records import VideoRecord, fingerprint, in_memory, split_missing
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import DataListError
from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import ClipSpec

SIZE = (48, 60)
RECIPE = Path(__file__).parents[3] / "configs/Gestures/pretrain_wide.yaml"


def clip(index: int, *, seed: int = 0, split: int = 0) -> WideClip:
    return WideClip(seed, split, index, SIZE)


def test_classes_are_many_and_no_two_paths_are_alike() -> None:
    paths = np.stack([stroke.path for stroke in STROKES])
    assert paths.shape == (99, POINTS, 3) and len(set(CLASS_NAMES)) == 99
    assert np.abs(paths).max() < 1.05
    distance = np.abs(paths[:, None] - paths[None]).max(axis=(2, 3)) + 9.0 * np.eye(len(paths))
    assert distance.min() > 0.3


def test_the_mirror_image_of_a_class_is_another_class_or_itself_and_so_is_its_reversal() -> None:
    paths = {stroke.name: stroke.path for stroke in STROKES}
    for name, mirrored in (("right", "left"), ("tick", "tick mirrored"), ("corner", "corner mirrored")):
        np.testing.assert_allclose(paths[name] * (-1, 1, 1), paths[mirrored], atol=1e-9)
    for name, backwards in (("up", "down"), ("star", "star reversed"), ("push", "pull")):
        np.testing.assert_allclose(paths[name][::-1], paths[backwards], atol=1e-9)
    mirror_images = [path * (-1, 1, 1) for path in paths.values()]
    found = [any(np.abs(image - path).max() < 1e-6 for path in paths.values()) for image in mirror_images]
    assert all(found)


def test_a_drawing_goes_from_the_start_of_its_path_to_the_end() -> None:
    label = CLASS_NAMES.index("right")
    for seed in range(20):
        drawing = Drawing.sample(numpy_generator(seed), label)
        drawn = drawing.positions(label, NUM_FRAMES)
        assert drawn.shape == (NUM_FRAMES, 3)
        assert drawn[-1, 0] - drawn[0, 0] > 0.1
        assert not drawn[:, 2].any()


def test_the_fingertip_is_in_the_frame_while_it_draws() -> None:
    seen = []
    for index in range(2 * len(STROKES)):
        share = clip(index).motion().tip[NUM_FRAMES // 3 : NUM_FRAMES * 2 // 3] / SIZE[::-1]
        assert share.min() > EDGE - 0.01 and share.max() < 1.01 - EDGE, index
        seen.append(share.mean(axis=0))
    assert np.std(seen, axis=0).min() > 0.08  # anywhere in it


def test_the_hand_is_drawn_where_the_motion_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "skin_colour", lambda _: np.array([250.0, 0.0, 250.0]))
    monkeypatch.setattr(wide_clips, "background", lambda _, size, calm: np.zeros((*size, 3), np.uint8))
    index = CLASS_NAMES.index("diagonal")
    right = total = 0
    for repeat in range(12):
        drawn = clip(index + repeat * len(STROKES))
        motion = drawn.motion()
        if motion.pose != "point":
            continue
        for number in (8, 12, 16):
            frame = drawn[np.array([number])][0].astype(int)
            finger = motion.tip[number] + 0.1 * (motion.wrist[number] - motion.tip[number])
            x, y = np.clip(finger.round().astype(int), 1, np.array(SIZE[::-1]) - 2)
            right += frame[y - 1 : y + 2, x - 1 : x + 2].max() > 12
            total += 1
    assert total >= 15 and right >= 0.9 * total


def test_frames_depend_on_seed_split_and_index_alone() -> None:
    indices = np.array([3, 11, 11, 20])
    frames = clip(5)[indices]
    assert frames.shape == (4, *SIZE, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, pickle.loads(pickle.dumps(clip(5)))[indices])
    np.testing.assert_array_equal(frames, clip(5)[np.arange(NUM_FRAMES)][indices])  # whatever else is drawn
    np.testing.assert_array_equal(frames[1], frames[2])
    for other in (clip(5, seed=1), clip(5, split=1), clip(5 + len(STROKES))):
        assert np.abs(other[indices].astype(int) - frames).mean() > 5


def test_frames_have_contents_and_move() -> None:
    frames = np.stack([clip(index)[np.array([6, 12, 18])] for index in range(40)]).astype(float)
    assert (frames.std(axis=(2, 3)).max(axis=(1, 2)) > 4).mean() > 0.9
    moved = np.abs(np.diff(frames, axis=1)).max(axis=(1, 2, 3, 4))
    assert (moved > 25).mean() > 0.9
    means = frames.mean(axis=(1, 2, 3))  # (clips, channels): scenes of every brightness
    assert means.std(axis=0).min() > 25


def test_calm_clips_have_a_still_background() -> None:
    calm = [each for each in map(clip, range(60)) if each.calm]
    assert 0.2 * 60 < len(calm) < 0.6 * 60
    assert all(not each.motion().camera.any() for each in calm)
    assert all(each.motion().camera.any() for each in map(clip, range(60)) if not each.calm)


@pytest.mark.parametrize("pattern", scenes.PATTERNS, ids=lambda pattern: pattern.__name__)
def test_patterns_vary(pattern: object) -> None:
    pictures = [pattern(numpy_generator(seed), SIZE) for seed in range(4)]  # type: ignore[operator]
    for picture in pictures:
        assert picture.shape == SIZE and picture.dtype == np.float32 and np.isfinite(picture).all()
        assert picture.std() > 0.01
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.01


@pytest.mark.parametrize("pose", hands.POSES)
def test_hands_and_arms_are_pictures_with_alpha(pose: str) -> None:
    generator = numpy_generator(3)
    person = hands.Person.sample(generator, pose)
    for picture, size in (
        (hands.hand_picture(generator, person, 40), hands.HAND_SIZE),
        (hands.arm_picture(generator, person, 20), hands.ARM_SIZE),
    ):
        assert picture.dtype == np.uint8 and picture.shape[2] == 4
        assert picture.shape[0] / picture.shape[1] == pytest.approx(size[1] / size[0], rel=0.05)
        alpha = picture[:, :, 3].astype(int)
        assert 0.1 < (alpha > 128).mean() < 0.8
        assert (picture[:, :, :3] <= alpha[:, :, None] + 1).all()  # colours are times alpha


def test_records_need_no_file_and_load_like_any_video() -> None:
    videos = WideGestures(seed=0, num_clips=2 * len(STROKES), frame_size=SIZE, split="val").load()
    assert Counter(record.label for record in videos.records) == dict.fromkeys(range(len(STROKES)), 2)
    assert split_missing(videos.records) == (videos.records, [])
    assert all(map(in_memory, videos.records)) and not in_memory(VideoRecord("a.mp4", 0, "a list"))
    other = WideGestures(seed=1, num_clips=2 * len(STROKES), frame_size=SIZE, split="val").load()
    assert fingerprint(videos.records) != fingerprint(other.records)

    spec = ClipSpec(num_frames=4, sampling_rate="auto", size=(32, 40), crop_mode="full")
    dataset = VideoDataset(videos.records, spec=spec, timeout_sec=5.0)
    sample = dataset[7]
    assert sample.views is not None and sample.views.shape == (1, 3, 4, 32, 40)
    assert sample.label == 7 and not sample.failures and sample.distinct_frames == 4
    batch = next(iter(DataLoader(dataset, batch_size=8, num_workers=1)))  # in another process
    assert torch.equal(batch.clips[7:], sample.views)


def test_the_recipe_lists_its_clips_and_wants_the_right_number_of_classes() -> None:
    overrides = ["GESTURES.NUM_CLIPS", "[99, 5, 7]", "GESTURES.FRAME_SIZE", "[48, 60]"]
    cfg = load_config(str(RECIPE), overrides).cfg
    lists = {split: load_list(cfg, split) for split in ("train", "val", "test")}
    assert [len(videos.records) for videos in lists.values()] == [99, 5, 7]
    assert len({record.path for videos in lists.values() for record in videos.records}) == 111
    assert lists["train"].records[0].frames.shape == (NUM_FRAMES, 48, 60, 3)
    cfg = get_cfg()
    with pytest.raises(DataListError, match="Add: MODEL.NUM_CLASSES 99"):
        WideGestures.from_config(cfg, "train")


def test_frames_that_are_no_files_are_not_cached(tmp_path: Path) -> None:
    overrides = ["DATA_LOADER.CACHE", "disk", "DATA_LOADER.CACHE_DIR", str(tmp_path), "GESTURES.NUM_CLIPS", "[2, 2, 2]"]
    cfg = load_config(str(RECIPE), overrides).cfg
    stored_size = StoredSize(SIZE, 0, whole=True, fixed=True)
    videos, spec = load_list(cfg, "val"), ClipSpec.from_config(cfg)
    assert build_cache(cfg, videos, spec, stored_size, views=None, repeated=True) is None
    assert not list(tmp_path.rglob("*.frames"))
