"""Cheap baselines: their features on small made-up clips, folds, scores, videos that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.datasets.media import write_video
from timesformer.datasets.loader import EvalLoader
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.evaluation import baselines
from timesformer.evaluation.baselines import Examples, divide, landmark_features, middle_frames, small_motion_images
from timesformer.utils.errors import UserError


def moving_square(frames: range, gain: int = 1) -> torch.Tensor:
    """A grey clip of `SPEC` in which a square moves to the right in these frames only: uint8 (1, 3, 33, 96, 128)."""
    clip = torch.full((1, 3, *baselines.SPEC.input_shape[1:]), 20 * gain, dtype=torch.uint8)
    for t in range(clip.shape[2]):
        x = 4 * len([moved for moved in frames if moved <= t])
        clip[:, :, t, 40:56, x : x + 16] = 60 * gain
    return clip


def test_motion_images_show_where_and_when_something_moved_whatever_the_light() -> None:
    images = small_motion_images(moving_square(range(9, 16)))  # frames 8 to 16 are the second quarter
    assert images.shape == (1, 4, 12, 16)
    still = images.min()
    assert [bool((image > still).any()) for image in images[0]] == [False, True, False, False]
    rows, columns = torch.nonzero(images[0, 1] > still, as_tuple=True)
    assert (rows.min(), rows.max()) == (5, 6) and (columns.min(), columns.max()) == (0, 5)
    assert images.mean().abs() < 1e-5 and images.std() == pytest.approx(1, abs=1e-3)
    brighter = small_motion_images(moving_square(range(9, 16), gain=3))
    assert (brighter - images).abs().max() < 0.1 * images.max()


def test_a_clip_without_motion_has_finite_features() -> None:
    assert small_motion_images(moving_square(range(0))).abs().max() == 0


def test_the_middle_frame_is_scaled_by_means_over_areas() -> None:
    clip = moving_square(range(33))  # in frame 16 the square is at 68
    small = middle_frames(clip)
    assert small.shape == (1, 3, 12, 16)
    assert small[0, 0, 5, 7:12].tolist() == [20, 40, 60, 40, 20]


def test_landmarks_of_frames_without_a_hand_are_interpolated_and_marked() -> None:
    landmarks = np.full((3, 21, 2), np.nan, np.float32)
    assert not landmark_features(landmarks).any()
    landmarks[0], landmarks[2] = 0.2, 0.4
    landmarks[[0, 2], 5] += 0.1
    features = landmark_features(landmarks)
    assert features.shape == (3 * (42 + 40 + 1),) and features.dtype == np.float32
    frames = features.reshape(3, 83)
    np.testing.assert_allclose(frames[:, 0], [0.2, 0.3, 0.4], atol=1e-6)  # x of the wrist
    np.testing.assert_allclose(frames[:, 42 + 2 * 4], 0.1, atol=1e-6)  # x of the sixth landmark from there
    assert frames[:, -1].tolist() == [1, 0, 1]


def test_no_person_is_in_both_parts_of_a_fold() -> None:
    labels = np.tile([0, 1], 12)
    subjects = [f"s{i // 4}" for i in range(24)]
    folds = divide(labels, subjects)
    assert len(folds) == 5 and sorted(np.concatenate([rest for _, rest in folds])) == [*range(24)]
    assert all(not {subjects[i] for i in fit} & {subjects[i] for i in rest} for fit, rest in folds)
    assert len(divide(labels, [""] * 24)) == 5  # nobody is known: by class only
    assert len(divide(labels, ["s0"] * 24)) == 5  # one person
    assert divide(np.arange(4), [""] * 4) == []  # one video a class


def examples(offset: float, subjects: bool = True) -> Examples:
    """20 videos of two classes, apart by `offset` in each of 30 features."""
    labels = np.tile([0, 1], 10)
    noise = np.random.default_rng(0).normal(size=(20, 30))
    names = [f"s{i // 5}" * subjects for i in range(20)]
    return Examples({"f": noise + offset * labels[:, None]}, labels, names, seconds=2.0)


@pytest.mark.parametrize("subjects", [True, False])
def test_logistic_regression_learns_what_can_be_learnt_and_is_deterministic(subjects: bool) -> None:
    train, test = examples(3.0, subjects), examples(3.0)
    test.features["f"] = test.features["f"][::-1] + 0.1
    test.labels = test.labels[::-1]
    score = baselines.score_features("f", train, test)
    assert (score.top1, round(score.low, 1), score.high) == (100, 83.9, 100) and score.seconds > 4
    again = baselines.fit_classifier(train.features["f"], train.labels, train.subjects)
    first = baselines.fit_classifier(train.features["f"], train.labels, train.subjects)
    assert (again.predict_proba(test.features["f"]) == first.predict_proba(test.features["f"])).all()


def test_one_video_a_class_is_enough_and_one_class_is_an_error() -> None:
    model = baselines.fit_classifier(np.eye(3), np.arange(3), [""] * 3)
    assert model.predict(np.eye(3)).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="are of class 7: nothing to tell apart"):
        baselines.fit_classifier(np.eye(3), np.full(3, 7), [""] * 3)


def test_the_majority_is_the_largest_class_of_the_training_list() -> None:
    train, test = (Examples({}, np.array(labels), []) for labels in ([2, 1, 1, 2, 0], [1, 2, 1, 0]))
    score = baselines.score_majority(train, test)
    assert score.top1 == 50 and score.low < 50 < score.high and score.method == "majority class"


@pytest.fixture
def records(tmp_path: Path) -> list[VideoRecord]:
    """Two videos of a person each and, between them, an empty file."""
    for name, size in (("a", (64, 48)), ("c", (96, 64))):
        write_video(tmp_path / f"{name}.mp4", num_frames=12, size=size)
    (tmp_path / "b.mp4").touch()
    return [
        VideoRecord(f"{tmp_path}/{name}.mp4", i, f"train.csv:{i + 1}", subject=name) for i, name in enumerate("abc")
    ]


def clips(records: list[VideoRecord]) -> Examples:
    return baselines.read_clips(EvalLoader(VideoDataset(records, spec=baselines.SPEC), videos_per_batch=2), records)


def test_videos_that_cannot_be_read_are_left_out_and_named(records: list[VideoRecord]) -> None:
    found = clips(records)
    assert {name: values.shape for name, values in found.features.items()} == {
        "middle frame": (2, 3 * 12 * 16),
        "motion images": (2, 4 * 12 * 16),
    }
    assert found.labels.tolist() == [0, 2] and found.subjects == ["a", "c"]
    assert [str(failure) for failure in found.failures] == [f"{records[1].path} (train.csv:2): the file is empty"]
    with pytest.raises(UserError, match=r"none of the 1 videos could be read; the first: .*b\.mp4"):
        clips(records[1:2])


def test_landmarks_are_of_eight_whole_frames_of_each_video(records: list[VideoRecord]) -> None:
    shapes = []

    def find(frames: np.ndarray) -> np.ndarray:
        shapes.append(frames.shape)
        return np.full((len(frames), 21, 2), 0.5, np.float32)

    found = baselines.read_landmarks(records, find, backend="pyav", show_progress=False)
    assert shapes == [(8, 48, 64, 3), (8, 64, 96, 3)]
    assert found.features["hand landmarks"].shape == (2, 8 * 83)
    assert found.labels.tolist() == [0, 2] and [failure.index for failure in found.failures] == [1]
