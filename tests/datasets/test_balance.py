"""Unequal classes: equal shares of an epoch, repeats that differ, weights whose mean over the videos is 1."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.media import write_video
from timesformer.config import load_config
from timesformer.datasets import build
from timesformer.datasets.balance import balanced_order, class_weights, imbalance, occurrences
from timesformer.datasets.loader import StepBatchSampler
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.datasets.video_dataset import SampleKey
from timesformer.utils.random import numpy_generator


def records(*labels: int) -> list[VideoRecord]:
    return [VideoRecord(f"{i}.mp4", label, "list") for i, label in enumerate(labels)]


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), seed=st.integers(0, 9))
def test_every_class_has_its_share_and_every_round_is_whole(labels: list[int], seed: int) -> None:
    order = balanced_order(np.array(labels), numpy_generator(seed))
    assert len(order) == len(labels)
    shares = Counter(labels[index] for index in order)
    assert set(shares) <= set(labels) and max(shares.values()) - min(shares[label] for label in set(labels)) <= 1
    times = Counter(order.tolist())
    for label in set(labels):
        of_class = [times[index] for index in range(len(labels)) if labels[index] == label]
        assert max(of_class) - min(of_class) <= 1


@given(order=st.lists(st.integers(0, 4), max_size=30))
def test_occurrences_count_what_came_before(order: list[int]) -> None:
    expected = [order[:place].count(index) for place, index in enumerate(order)]
    assert occurrences(np.array(order, dtype=np.int64)).tolist() == expected


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    labels = np.array([0] * 30 + [1] * 3)

    def order(seed: int, epoch: int) -> list[int]:
        return StepBatchSampler(33, global_batch=8, micro_batch=4, seed=seed, labels=labels).order(epoch).tolist()

    assert order(0, 1) == order(0, 1) and order(0, 1) != order(0, 2) and order(0, 1) != order(1, 1)
    seen = {index for epoch in range(12) for index in order(0, epoch)}
    assert seen == {*range(33)}  # nothing of the large class is left out for good


def test_repeats_are_in_one_step_and_no_partner_is_the_same_record() -> None:
    sampler = StepBatchSampler(10, global_batch=8, micro_batch=4, repeats=2, pairs=True)
    steps = sampler.plan(3)
    assert [step.num_samples for step in steps] == [8, 8, 4]
    for step in steps:
        keys = [key for piece in step.micro_batches for key in piece]
        assert {(index, count) for index, count in Counter(key.index for key in keys).items()} == {
            (key.index, 2) for key in keys
        }
        assert Counter(key.repeat for key in keys) == {0: len(keys) // 2, 1: len(keys) // 2}
        assert all(a.index != b.index for a, b in zip(keys[::2], keys[1::2], strict=True))
    assert sorted(sampler.order(3).tolist()) == sorted([*range(10)] * 2)
    assert StepBatchSampler(10, global_batch=8, micro_batch=4).plan(3)[0].micro_batches[0][0].repeat == 0


def test_a_repeat_is_augmented_differently_and_the_same_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    words = ["DATA.TRAIN_CROP_SIZE", "32", "DATA.TRAIN_JITTER_SCALES", "[32,48]", "DATA.NUM_FRAMES", "4"]
    dataset = build.build_train_dataset(
        load_config(None, words).cfg, VideoList([VideoRecord(str(tmp_path / "a.mp4"), 0, "list")])
    )
    first, second, again = (dataset[SampleKey(0, 0, 0, repeat)].views for repeat in (0, 1, 1))
    assert first is not None and second is not None and again is not None
    assert torch.equal(second, again) and not torch.equal(first, second)
    plain = dataset[SampleKey(0, 7, 0)].views
    assert plain is not None and torch.equal(first, plain)


def test_weights_of_the_loss() -> None:
    videos = records(0, 0, 0, 2)
    weights = class_weights(videos, 3)
    assert weights == [pytest.approx(2 / 3), 1.0, 2.0]
    assert np.mean([weights[record.label] for record in videos]) == pytest.approx(1.0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("setting", "labels", "chosen"),
    [
        ("auto", [0] * 6 + [1] * 2, "none"),
        ("auto", [0] * 7 + [1] * 2, "sampling"),
        ("none", [0] * 9 + [1], "none"),
        ("weights", [0, 1], "weights"),
        ("sampling", [0, 1], "sampling"),
    ],
)
def test_auto_is_for_classes_that_differ_more_than_threefold(setting: str, labels: list[int], chosen: str) -> None:
    cfg = load_config(None, ["TRAIN.BALANCE", setting, "MODEL.NUM_CLASSES", "2"]).cfg
    videos = VideoList(records(*labels))
    assert build.balance(cfg, videos) == chosen
    assert (build.loss_weights(cfg, videos) is not None) == (chosen == "weights")
    sampler = build.build_train_loader(cfg, videos).sampler
    assert (sampler.labels is not None) == (chosen == "sampling")


def test_several_labels_are_not_balanced() -> None:
    cfg = load_config(None, ["TRAIN.BALANCE", "auto", "DATA.MULTI_LABEL", "True", "MODEL.LOSS_FUNC", "bce_logit"]).cfg
    videos = [VideoRecord(os.devnull, label, "list") for label in ((0, 1), (0,), (0,), (0,), (0,))]
    assert imbalance(videos) == 5 and build.balance(cfg, VideoList(videos)) == "none"
