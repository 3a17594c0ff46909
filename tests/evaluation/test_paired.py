"""Two runs on the same clips: McNemar as scipy has it, intervals that cover, words that follow from the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from timesformer.datasets.records import VideoList, VideoRecord, fingerprint
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import paired_difference
from timesformer.evaluation.paired import Paired, compare_runs, describe, mcnemar
from timesformer.evaluation.report import write_predictions
from timesformer.utils.errors import UserError


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(1, 1)] * both + [(1, 0)] * only_first + [(0, 1)] * only_second + [(0, 0)] * neither
    first, second = np.array(pairs, dtype=bool).T
    return first, second


@pytest.mark.parametrize("table", [(10, 3, 9, 2), (0, 1, 0, 5), (50, 20, 20, 0), (5, 0, 0, 5), (100, 2, 17, 30)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(table: tuple[int, int, int, int]) -> None:
    first, second = outcomes(*table)
    _, b, c, _ = table
    expected = binomtest(min(b, c), b + c, 0.5, alternative="two-sided").pvalue if b + c else 1.0
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(expected)


def test_mcnemar_of_many_clips_is_near_the_chi_squared_test() -> None:
    first, second = outcomes(3000, 520, 600, 500)
    corrected = (abs(600 - 520) - 1) ** 2 / (600 + 520)  # Edwards, 1948
    assert mcnemar(first, second) == pytest.approx(chi2.sf(corrected, 1), abs=0.001)


def test_the_difference_by_clip_is_near_that_of_independent_pairs() -> None:
    first, second = outcomes(600, 100, 160, 140)
    difference, low, high = paired_difference(first, second)
    error = 100 * np.sqrt((0.26 - 0.06**2) / 1000)
    assert difference == pytest.approx(6.0)
    assert (low, high) == pytest.approx((6.0 - 1.96 * error, 6.0 + 1.96 * error), abs=0.3)
    assert paired_difference(first, first) == pytest.approx((0.0, -0.28, 0.28), abs=0.01)  # nothing differs in 1,000


def test_a_gain_of_one_person_is_no_gain_of_many() -> None:
    """40 clips better, all of one of ten persons: clips say so, persons do not."""
    first, second = np.zeros(400, bool), np.arange(400) < 40
    people = [f"{i // 40}" for i in range(400)]
    assert mcnemar(first, second) < 1e-10 and paired_difference(first, second)[1] > 5
    assert paired_difference(first, second, people)[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_people", [10, 20, 30])
def test_the_interval_of_a_difference_covers(num_people: int) -> None:
    """Two models that differ by person, on the same clips: 500 experiments."""
    generator, covered = np.random.default_rng(num_people), []
    people = np.repeat(np.arange(num_people), 12).astype(str).tolist()

    def skills(number: int) -> tuple[np.ndarray, np.ndarray]:
        person = generator.normal(0, 0.8, number)
        return tuple(1 / (1 + np.exp(-(at + person + generator.normal(0, 0.6, number)))) for at in (1.0, 1.5))  # type: ignore[return-value]

    first, second = skills(1_000_000)
    truth = 100 * float(second.mean() - first.mean())
    for _ in range(500):
        a, b = (generator.random((num_people, 12)) < skill[:, None] for skill in skills(num_people))
        _, low, high = paired_difference(a.ravel(), b.ravel(), people)
        covered.append(low <= truth <= high)
    assert 0.925 <= np.mean(covered) <= 0.97


def write_run(folder: Path, right: np.ndarray, people: list[str], *, prefix: str = "/here", times: int = 1) -> Path:
    """A folder with the predictions and the list of a test."""
    folder.mkdir()
    records = [
        VideoRecord(f"{prefix}/clips/{i}.mp4", i % 2, "test.csv", subject=person) for i, person in enumerate(people)
    ]
    labels = [record.label for record in records] * times
    scores = np.eye(2)[np.where(right, labels, 1 - np.array(labels))]
    rows = Predictions(np.arange(len(labels)) % len(records), labels, scores, [], np.ones(len(labels)), [])
    write_predictions(folder / "predictions.csv", VideoList(records), rows)
    (folder / "results.json").write_text(json.dumps({"list": fingerprint(records)}))
    return folder


def test_runs_of_two_machines_are_matched_clip_by_clip(tmp_path: Path) -> None:
    first, second = outcomes(30, 2, 12, 4)
    people = [f"p{i % 8}" for i in range(48)]
    one = write_run(tmp_path / "one", first, people)
    other = write_run(tmp_path / "other", second, people, prefix="/elsewhere")
    lines = (other / "predictions.csv").read_text().splitlines()
    (other / "predictions.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))  # in another order
    result = compare_runs(one, other)
    assert result[:4] == (48, 8, 2, 12) and result.p_value == pytest.approx(binomtest(2, 14).pvalue)
    assert result[5:] == paired_difference(first, second, people)
    text = "\n".join(describe(result, "one", "other"))
    assert "+20.8 points" in text and "8 persons resampled" in text and "p = 0.013" in text
    assert "other is better than one on such clips, by" in text
    assert compare_runs(other, one).difference == -result.difference


def test_a_clip_that_was_predicted_several_times_counts_once(tmp_path: Path) -> None:
    """As by a protocol over seeds: no McNemar then, and the shares are compared."""
    right = np.array([True, False] * 10)
    one = write_run(tmp_path / "one", right, [""] * 20)
    seeds = write_run(tmp_path / "seeds", np.concatenate([right, right, ~right]), [""] * 20, times=3)
    result = compare_runs(one, seeds)
    assert (result.num_clips, result.num_people, result.p_value) == (20, 0, None)
    assert result.difference == pytest.approx(0) and result.low < 0 < result.high


def test_different_lists_are_refused(tmp_path: Path) -> None:
    right = np.ones(8, bool)
    one = write_run(tmp_path / "one", right, [""] * 8)
    other = write_run(tmp_path / "other", right[:7], [""] * 7)
    with pytest.raises(UserError, match="(?s)different lists.*8 videos.*7 videos"):
        compare_runs(one, other)
    (other / "results.json").write_text("[]")
    with pytest.raises(UserError, match="other: results.json cannot be read"):
        compare_runs(one, other)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "people", "words"),
    [
        (1.0, 7.0, 0.01, 9, "B is better than A on such clips, by 1.0 points or more"),
        (-7.0, -2.0, 0.2, 9, "A is better than B on such clips, by 2.0 points or more"),
        (-1.0, 9.0, 0.01, 9, "not settled: McNemar's test finds a difference, but with other persons"),
        (-2.0, 3.0, 0.6, 0, "no difference is shown; one of up to 3.0 points is possible"),
        (-2.0, 3.0, None, 0, "no difference is shown"),
    ],
)
def test_what_follows_in_words(low: float, high: float, p_value: float | None, people: int, words: str) -> None:
    lines = describe(Paired(100, people, 3, 9, p_value, 3.0, low, high), "A", "B")
    assert words in lines[-1]
    assert any("McNemar    p" in line for line in lines) == (p_value is not None)
    assert any("takes clips as independent" in line for line in lines) == bool(people and p_value is not None)
