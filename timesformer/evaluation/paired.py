"""Which of two tested runs is better on the same clips: exact McNemar test, difference with its interval by person."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from timesformer.datasets.records import path_tail
from timesformer.evaluation.metrics import by_person, paired_difference
from timesformer.evaluation.report import read_predictions
from timesformer.utils.console import count
from timesformer.utils.errors import UserError

LEVEL = 0.05

Clip = tuple[str, float, float, int | tuple[int, ...]]  # the end of its path, the part of the file, its label


class Paired(NamedTuple):
    """What the comparison of a second run with a first one says; shares in percent."""

    num_clips: int
    num_people: int  # 0: unknown, clips count as independent
    only_first: int  # clips that only the first run predicts right
    only_second: int
    p_value: float | None  # of McNemar's exact test; None where a clip was predicted more than once
    difference: float  # accuracy of the second minus that of the first
    low: float  # of its 95% interval
    high: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test (1947): whether both are right equally often.

    Args:
        first: (n,) whether each clip was predicted right.
        second: (n,) the same of another run on the same clips.
    """
    from scipy.stats import binomtest  # half a second to import

    only_first, only_second = int(np.sum(first > second)), int(np.sum(second > first))
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def compare_runs(first: Path, second: Path) -> Paired:
    """The second run against the first one; both are folders of tested runs or protocols.

    Raises:
        UserError: they were tested on different lists, on clips with several labels, or before lists were recorded.
    """
    if (lists := [_list_of(folder) for folder in (first, second)])[0] != lists[1]:
        shown = "".join(
            f"\n  {folder}: {text or 'unknown'}" for folder, text in zip((first, second), lists, strict=True)
        )
        raise UserError(f"no paired test, since the two were tested on different lists:{shown}\nTest both on one list")
    one, people = _correct(first)
    other, _ = _correct(second)
    clips = [clip for clip in one if clip in other]
    if not clips:
        raise UserError(f"no paired test: {first} and {second} have no scored clip in common")
    a, b = (np.array([np.mean(run[clip]) for clip in clips]) for run in (one, other))
    persons = [people[clip] for clip in clips]
    single = all(len(run[clip]) == 1 for run in (one, other) for clip in clips)
    return Paired(
        len(clips),
        len({*persons}) if by_person(persons) else 0,
        int(np.sum(a > b)),
        int(np.sum(b > a)),
        mcnemar(a, b) if single else None,
        *paired_difference(a, b, persons),
    )


def describe(result: Paired, first: str, second: str) -> list[str]:
    """The comparison in lines; the last one says in words what follows from it."""
    unit = (
        f"{count(result.num_people, 'person')} resampled"
        if result.num_people
        else "clips as independent, persons unknown"
    )
    effect = f"{result.difference:+.1f} points, 95% interval {result.low:+.1f} to {result.high:+.1f} ({unit})"
    lines = [
        f"paired test      {second} against {first}, {count(result.num_clips, 'clip')}",
        f"right in one     only {first}: {result.only_first}, only {second}: {result.only_second}",
        f"difference       {effect}",
    ]
    if result.p_value is not None:
        counted = ", which takes clips as independent" if result.num_people else ""
        lines.append(f"exact McNemar    p = {result.p_value:.2g}{counted}")
    return [*lines, f"it follows       {_verdict(result, first, second)}"]


def _verdict(result: Paired, first: str, second: str) -> str:
    if result.low > 0 or result.high < 0:
        better, worse = (second, first) if result.low > 0 else (first, second)
        smallest = min(abs(result.low), abs(result.high))
        return f"{better} is better than {worse} on such clips, by {smallest:.1f} points or more"
    if result.p_value is not None and result.p_value < LEVEL:
        other = "persons, who differ" if result.num_people else "clips"
        return f"not settled: McNemar's test finds a difference, but with other {other}, it could vanish"
    widest = max(abs(result.low), abs(result.high))
    return f"no difference is shown; one of up to {widest:.1f} points is possible"


def _list_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "results.json").read_text()).get("list", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: results.json cannot be read ({error}). Test the run again") from error


def _correct(folder: Path) -> tuple[Mapping[Clip, list[bool]], Mapping[Clip, str]]:
    """Whether each prediction of each clip was right, and the person in it."""
    path = folder / "predictions.csv"
    if not path.is_file():
        raise UserError(f"no paired test: {path} is not there. Test the run again: TRAIN.ENABLE False")
    records, predictions = read_predictions(path)
    right, people = defaultdict(list), {}
    for record, scores in zip(records, predictions.scores, strict=True):
        clip = (path_tail(record.path), record.start_sec, record.end_sec, record.label)
        right[clip].append(bool(scores.argmax() == record.label))
        people[clip] = record.subject
    return right, people
