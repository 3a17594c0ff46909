"""Metrics against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score

from timesformer.evaluation import metrics


def random_case(n: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((n, num_classes)), generator.integers(0, num_classes, n)


def test_topk_accuracy_agrees_with_scikit_learn() -> None:
    scores, labels = random_case(200, 12)
    for k in (1, 2, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(12))
        assert metrics.topk_accuracy(scores, labels, k) == pytest.approx(100 * expected)


@given(num_classes=st.integers(1, 8), n=st.integers(0, 20))
def test_defect_09_any_number_of_classes_has_a_top_k(num_classes: int, n: int) -> None:
    scores, labels = random_case(n, num_classes)
    summary = metrics.summarize(scores, labels.tolist(), multi_label=False)
    assert "top1" in summary
    for k in metrics.reported_ks(num_classes):
        assert k == 1 or 1 < k < num_classes
    if n:
        assert metrics.topk_accuracy(scores, labels, 5) == 100.0 or num_classes > 5


def test_defect_08_scores_weigh_every_video_once() -> None:
    """Three right of four is 75%, whatever the batches they came in or the number of channels."""
    scores = np.eye(3)[[0, 1, 2, 0]]
    assert metrics.topk_accuracy(scores, np.array([0, 1, 2, 1]), 1) == 75.0


def test_mean_class_accuracy_agrees_with_scikit_learn() -> None:
    scores, labels = random_case(300, 4, seed=1)
    labels[:150] = 0
    summary = metrics.summarize(scores, labels.tolist(), multi_label=False)
    assert summary["macro_f1"] == pytest.approx(100 * f1_score(labels, scores.argmax(1), average="macro"))
    assert summary["mean_class"] == pytest.approx(100 * balanced_accuracy_score(labels, scores.argmax(1)))


def test_confusion_has_true_classes_in_rows_and_nan_marks_classes_without_clips() -> None:
    scores = np.eye(3)[[1, 1, 0]]
    matrix = metrics.confusion(scores, np.array([0, 1, 0]))
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert metrics.confusion(np.empty((0, 3)), np.array([], int)).tolist() == np.zeros((3, 3)).tolist()
    assert metrics.confusion(scores, np.array([-1, 3, 2])).sum() == 1  # labels of no class
    accuracy = metrics.per_class_accuracy(matrix)
    assert accuracy[:2].tolist() == [50.0, 100.0] and np.isnan(accuracy[2])


def test_mean_average_precision_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.7, 0.5], [0.1, 0.6, 0.5]])
    labels: list[tuple[int, ...]] = [(0,), (1,), (0, 1)]
    # class 0: ranks 1 and 3 are positive -> (1/1 + 2/3) / 2; class 1: ranks 1 and 2 -> 1; class 2 has no positive
    expected = 100 * ((1 + 2 / 3) / 2 + 1.0) / 2
    assert metrics.summarize(scores, labels, multi_label=True)["mAP"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(20, 20, 83.9, 100.0), (0, 20, 0.0, 16.1), (1, 1, 20.7, 100.0), (90, 100, 82.6, 94.5), (300, 400, 70.5, 79.0)],
)  # Wilson, 1927, as tables give it
def test_the_interval_of_a_share_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    correct = np.arange(n) < right
    assert metrics.accuracy_interval(correct) == pytest.approx((low, high), abs=0.06)
    for people in ([""] * n, ["a"] * n, [str(i) for i in range(n)], ["", *["a"] * (n - 1)]):
        assert metrics.accuracy_interval(correct, people) == metrics.accuracy_interval(correct)
    assert np.isnan(metrics.accuracy_interval(correct[:0])).all()


def test_videos_of_one_person_are_not_independent() -> None:
    people = [f"person {i // 20}" for i in range(200)]  # ten persons, twenty videos each
    correct = np.arange(200) < 100  # five persons all right, five all wrong: ten independent observations
    low, high = metrics.accuracy_interval(correct, people)
    assert (low, high) == pytest.approx((20, 80), abs=3)  # of 5 of 10, by the binomial distribution
    summary = metrics.summarize(np.eye(2)[correct.astype(int)], [1] * 200, multi_label=False, people=people)
    assert (summary["top1_low"], summary["top1_high"]) == (low, high)
    everything = metrics.accuracy_interval(np.ones(20, bool), [f"{i % 4}" for i in range(20)])
    assert everything == pytest.approx((83.9, 100), abs=0.06)
    alike = metrics.accuracy_interval(np.arange(40) % 2 == 0, [f"{i // 2}" for i in range(40)])  # each half right
    assert alike == metrics.accuracy_interval(np.arange(40) % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_people", "accuracy"),
    [(10, 0.6), (10, 0.8), (20, 0.6), (20, 0.8), (20, 0.9), (30, 0.6), (30, 0.8), (30, 0.9)],  # (10, 0.9): 97.1%
)
@pytest.mark.parametrize("correlation", [0.05, 0.2])
def test_the_interval_by_person_covers(num_people: int, accuracy: float, correlation: float) -> None:
    """2,000 experiments with 12 videos of each person, whose own accuracies are drawn from a Beta distribution."""
    generator = np.random.default_rng([num_people, round(100 * accuracy), round(100 * correlation)])
    spread = 1 / correlation - 1  # of which `correlation` is that of two videos of one person
    people, covered = np.repeat(np.arange(num_people), 12).astype(str).tolist(), []
    for _ in range(2000):
        of_person = generator.beta(accuracy * spread, (1 - accuracy) * spread, num_people)
        low, high = metrics.accuracy_interval(generator.random(12 * num_people) < np.repeat(of_person, 12), people)
        covered.append(low <= 100 * accuracy <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_interval_of_a_difference_is_bonett_and_prices() -> None:
    """15 of 50 right only before, 5 right only after: (16 - 6) / 52 +- 1.96 sqrt((22 / 52 - (10 / 52)^2) / 52)."""
    before, after = np.ones(50, bool), np.ones(50, bool)
    after[:15], before[15:20] = False, False
    assert metrics.paired_difference(after, before)[1:] == pytest.approx((2.35, 36.11), abs=0.01)
    assert metrics.paired_difference(before, after)[1:] == pytest.approx((-36.11, -2.35), abs=0.01)
    same = metrics.paired_difference(before, before)[1:]
    assert -6 < same[0] == -same[1] < -3  # nothing differs in 50 videos: up to about 5 in 100 may
    assert metrics.paired_difference(np.zeros(5, bool), np.ones(5, bool))[2] <= 100
    assert np.isnan(metrics.paired_difference(before[:0], after[:0])).all()


def test_the_interval_of_a_difference_covers_it_and_knows_persons() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        both = generator.random(60)
        _, low, high = metrics.paired_difference(both + 0.3 * generator.random(60) < 0.9, both < 0.9)
        covered += low <= 15 <= high  # 0.9 minus the mean of 0.9 - 0.3 u
    assert 0.93 * 400 <= covered <= 0.98 * 400
    people = [f"person {i // 20}" for i in range(200)]
    before, after = np.ones(200, bool), np.arange(200) < 100  # five persons lose everything, five nothing
    assert metrics.paired_difference(after, before, people) == pytest.approx((50, 12, 88), abs=3)


def test_log_loss_of_single_and_several_labels() -> None:
    scores = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert metrics.log_loss(scores, [1, 0], multi_label=False) == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)
    expected = -(2 * np.log(0.75) + 2 * np.log(0.5)) / 4
    assert metrics.log_loss(scores, [(1,), (0, 1)], multi_label=True) == pytest.approx(expected)
