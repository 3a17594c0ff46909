"""What a model's guesses on changed clips say: how much of its score needs motion, which classes are mirror images.

Pure functions of the guesses that `guess_variants` of `evaluate.py` makes: (n, 5) classes of the centre view of n
videos, as it is and then as each of `VARIANTS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np
import yaml

from timesformer.datasets.mirror import format_pairs
from timesformer.datasets.records import shorten
from timesformer.evaluation.metrics import accuracy_interval, by_person, paired_difference
from timesformer.evaluation.report import distinct_names
from timesformer.utils.console import count
from timesformer.video.variants import VARIANTS

MAX_VIDEOS, MAX_VIDEOS_OF_FEW_VIEWS, MANY_VIEWS = 2000, 300, 3
COLUMNS = ("as it is", *VARIANTS)
LEVEL = 0.05  # of the tests of all classes together
CONFUSED = 0.25  # of the clips of either class
MAX_SHOWN = 20  # classes or pairs in the log


def worth_auditing(setting: str | bool, num_videos: int, num_views: int) -> bool:
    """Whether TEST.AUDITS asks for audits; "auto" where they cost at most about as much again as the test.

    They score four more clips per video: about what a test of three views costs already. With fewer views the list must
    be so small that starting, reading and reporting take most of a test's time.
    """
    if setting == "auto":
        return num_videos <= (MAX_VIDEOS if num_views >= MANY_VIEWS else MAX_VIDEOS_OF_FEW_VIEWS)
    return bool(setting)


class Image(NamedTuple):
    """Two classes that a change turns into each other, or a class that stays itself.

    Attributes:
        first, second: labels, the smaller one first; the same for a class that stays itself.
        moved: clips whose changed form is called the other one.
        clips: of both, that are recognised as they are.
    """

    first: int
    second: int
    moved: int
    clips: int


def find_images(labels: np.ndarray, plain: np.ndarray, changed: np.ndarray, num_classes: int) -> list[Image]:
    """Classes that a change of their clips maps to each other or to themselves, beyond chance.

    Counted are clips that the model recognises as they are. Of either class, more than half must be called the other
    one when changed; both together must be more than half by an exact binomial test at `LEVEL`. Bonferroni's
    correction: at most as many pairs as there are classes can be at one half by the null hypothesis. A class that the
    model confuses with another one may stay itself because the model does not see what the change does: left out.

    Args:
        labels: (n,) true classes.
        plain: (n,) guesses of the clips as they are.
        changed: (n,) guesses of the changed clips.
        num_classes: K.
    """
    from scipy.stats import binomtest  # half a second to import

    counts, confused = _moves(labels, plain, changed, num_classes), _confusions(labels, plain, num_classes) >= CONFUSED
    totals, goal = counts.sum(axis=1), counts.argmax(axis=1)
    found = []
    for first, second in enumerate(goal.tolist()):
        both = [(first, second), (second, first)] if first != second else [(first, first)]
        if first > second or goal[second] != first or any(2 * counts[pair] <= totals[pair[0]] for pair in both):
            continue
        if first == second and (confused[first].any() or confused[:, first].any()):
            continue
        moved, clips = (int(sum(parts)) for parts in zip(*((counts[a, b], totals[a]) for a, b in both), strict=True))
        if binomtest(moved, clips).pvalue * num_classes <= LEVEL:
            found.append(Image(first, second, moved, clips))
    return found


def _moves(labels: np.ndarray, plain: np.ndarray, changed: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, K) clips recognised as they are, by their class and the guess of the changed clip."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    recognised = labels == plain
    np.add.at(counts, (labels[recognised], changed[recognised]), 1)
    return counts


def _confusions(labels: np.ndarray, plain: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, K) share of the clips of a class that are confused with another one, 0 to 1."""
    shares = np.zeros((num_classes, num_classes))
    np.add.at(shares, (labels, plain), 1 / np.bincount(labels, minlength=num_classes)[labels])
    np.fill_diagonal(shares, 0)
    return shares


def audit(
    labels: Sequence[int],
    guesses: np.ndarray,
    class_names: Sequence[str],
    num_classes: int,
    *,
    people: Sequence[str] = (),
    flipped: Collection[int] = (),
    mapped: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Everything that the guesses say, as results.json holds it.

    Args:
        labels: true class of each of n videos, at least one.
        guesses: (n, 5).
        class_names: in label order; [] when unknown.
        num_classes: K.
        people: the person in each video, see `accuracy_interval`.
        flipped: labels whose clips the training flipped left-right at random.
        mapped: label to the label that a flipped clip got in training; others keep theirs.
    """
    truth, mapped = np.asarray(labels, np.int64), mapped or {}
    names = distinct_names([*class_names] or [str(label) for label in range(num_classes)])
    correct = guesses == truth[:, None]
    images = {
        variant: find_images(truth, guesses[:, 0], guesses[:, COLUMNS.index(variant)], num_classes)
        for variant in ("mirrored", "reversed")
    }
    shown = class_names if len({*class_names}) == num_classes else range(num_classes)
    known = [image for image in images["mirrored"] if _is_evidence(image, flipped, mapped)]
    pairs = [[shown[image.first], shown[image.second]] for image in sorted(known, key=lambda i: i.first == i.second)]
    return {
        "videos": len(truth),
        "people": len({*people}) if by_person(people) else 0,
        "accuracy": {
            name: _with_interval(100.0 * right.mean(), accuracy_interval(right, people))
            for name, right in zip(COLUMNS, correct.T, strict=True)
        },
        "needs": {
            need: _with_interval(difference, (low, high))
            for need, column in (("motion", COLUMNS.index("shuffled")), ("frames", COLUMNS.index("frozen")))
            for difference, low, high in [paired_difference(correct[:, column], correct[:, 0], people)]
        },
        **{
            variant: [[names[image.first], names[image.second], image.moved, image.clips] for image in found]
            for variant, found in images.items()
        },
        "classes": _describe_moves(truth, guesses, names),
        "flip_label_map": pairs,
        "flip_config": _flip_config(pairs, everywhere=len({*chain(*pairs)}) == num_classes),
        "unknown": [names[image.first] for image in images["mirrored"] if image not in known],
        "warnings": [*_flip_warnings(truth, guesses[:, 0], images["mirrored"], shown, flipped, mapped)],
    }


def _with_interval(value: float, interval: tuple[float, float]) -> dict[str, float]:
    return {"value": float(value), "low": interval[0], "high": interval[1]}


def _is_evidence(image: Image, flipped: Collection[int], mapped: Mapping[int, int]) -> bool:
    """Whether it says something of the classes: not that one stays itself whose flipped clips kept their label."""
    return image.first != image.second or image.first not in flipped or image.first in mapped


def _describe_moves(truth: np.ndarray, guesses: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class, the clips that are recognised, and what most of them are called when changed."""
    rows: list[dict[str, Any]] = [{"name": name} for name in names]
    for variant in ("mirrored", "reversed"):
        counts = _moves(truth, guesses[:, 0], guesses[:, COLUMNS.index(variant)], len(names))
        for row, moved in zip(rows, counts, strict=True):
            row |= {
                "recognised": int(moved.sum()),
                variant: names[moved.argmax()],
                f"{variant}_clips": int(moved.max()),
            }
    return rows


def _flip_config(pairs: list[list[Any]], *, everywhere: bool) -> str:
    """YAML to paste, which flips clips of these classes only; "" without a class."""
    if not pairs:
        return ""
    settings = {"RANDOM_FLIP": True, "FLIP_LABEL_MAP": pairs, **({} if everywhere else {"FLIP_ONLY_MAPPED": True})}
    return yaml.safe_dump({"DATA": settings}, default_flow_style=None, sort_keys=False, allow_unicode=True, width=10**6)


def _flip_warnings(
    truth: np.ndarray,
    plain: np.ndarray,
    images: Sequence[Image],
    names: Sequence[Any],
    flipped: Collection[int],
    mapped: Mapping[int, int],
) -> Iterator[str]:
    """What a training with flips did against what the audit finds.

    A model whose flipped clips kept their labels hardly knows a class from its mirror image: they are confused.
    """
    staying = [label for label in flipped if mapped.get(label, label) == label]
    wrong = [image[:2] for image in images if {*image[:2]} & {*flipped} and mapped.get(image[0], image[0]) != image[1]]
    shares = _confusions(truth, plain, len(names))
    confused = [pair for pair in combinations(sorted(staying), 2) if min(shares[pair], shares[pair[::-1]]) >= CONFUSED]
    for found, what in (
        (wrong, "becomes in the mirror what the training did not call it"),
        (confused, "is confused with the other in both directions, as mirror images are after such a training"),
    ):
        if found:
            pairs = [[names[a], names[b]] for a, b in found]
            listed = ", ".join(shorten([f"{a!r} and {b!r}" if a != b else repr(a) for a, b in pairs], 5))
            yield (
                f"the training flipped clips (DATA.RANDOM_FLIP True), and each of these {what}: {listed}. If they are "
                f"mirror images, DATA.FLIP_LABEL_MAP needs {format_pairs(pairs)}, or train with DATA.RANDOM_FLIP False"
            )


def audit_table(found: Mapping[str, Any]) -> list[str]:
    """Lines for the log of what `audit` found."""
    interval = f"95% interval, by person ({found['people']})" if found["people"] else "95% interval"
    lines = [f"audits            the centre view of {count(found['videos'], 'video')}, {interval}"]
    for name, score in found["accuracy"].items():
        lines.append(f"  {name:<16}{score['value']:.1f}% [{score['low']:.1f}, {score['high']:.1f}]")
    lines += [f"{need:<18}{text}" for need, text in describe_needs(found).items()]
    for title, items in describe_images(found).items():
        lines += [f"{title:<18}{item}" for item in shorten(items, MAX_SHOWN)]
    if found["flip_config"] and len(found["flip_label_map"]) <= MAX_SHOWN:
        lines += ["to flip in training:", *(f"  {line}" for line in found["flip_config"].splitlines())]
    return lines


def describe_needs(found: Mapping[str, Any]) -> dict[str, str]:
    """How much of the score needs motion, and how much several frames."""
    texts = ("are lost when the same frames come in another order", "are lost when every frame is the middle one")
    whole = found["accuracy"]["as it is"]["value"]
    return {
        f"needs {need}": f"{lost['value']:.1f} of {whole:.1f} points [{lost['low']:.1f}, {lost['high']:.1f}] {text}"
        for (need, lost), text in zip(found["needs"].items(), texts, strict=True)
    }


def describe_images(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """The classes that turn into each other, and those that stay themselves, by title."""
    texts: dict[str, list[str]] = {}
    for variant, swap, same in (
        ("mirrored", "mirror images", "own mirror image"),
        ("reversed", "time reversals", "own reversal"),
    ):
        rows = found[variant]
        pairs = [f"{a} and {b} ({moved} of {clips})" for a, b, moved, clips in rows if a != b]
        alone = [a for a, b, *_ in rows if a == b and not (variant == "mirrored" and a in found["unknown"])]
        texts[swap] = pairs or ["none for certain"]
        texts[same] = [", ".join(shorten(alone, MAX_SHOWN)) or "none for certain"]
    if found["unknown"]:
        listed = ", ".join(shorten(found["unknown"], MAX_SHOWN))
        texts["not known"] = [f"the training flipped clips of {listed}: they stay themselves whatever they show"]
    return texts
