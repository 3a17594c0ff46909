"""What audits say of scripted guesses: needs, mirror pairs, and what they say against a training with flips."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

from timesformer.datasets.mirror import flip_label_map
from timesformer.evaluation.audits import Image, audit, audit_table, find_images, worth_auditing

NAMES = ["wave", "swipe left", "swipe right", "point"]
SWAP = np.array([0, 2, 1, 3])
LABELS = np.arange(80) % 4  # twenty clips of each


def guesses(**columns: np.ndarray) -> np.ndarray:
    """All right but for these columns."""
    order = ("plain", "mirrored", "reversed", "frozen", "shuffled")
    return np.stack([columns.get(name, LABELS) for name in order], axis=1)


def found(table: np.ndarray, **settings: Any) -> dict[str, Any]:
    return audit(LABELS.tolist(), table, NAMES, 4, **settings)


def wrong(number: int, labels: np.ndarray = LABELS) -> np.ndarray:
    """The guesses of a model that is wrong for the first clips."""
    return np.where(np.arange(len(labels)) < number, (labels + 1) % 4, labels)


def test_needs_are_points_of_the_same_clips_with_their_intervals() -> None:
    result = found(guesses(plain=wrong(8), shuffled=wrong(40), frozen=wrong(60)))
    assert {name: score["value"] for name, score in result["accuracy"].items()} == pytest.approx(
        {"as it is": 90, "mirrored": 100, "reversed": 100, "frozen": 25, "shuffled": 50}
    )
    assert (result["accuracy"]["shuffled"]["low"], result["accuracy"]["shuffled"]["high"]) == pytest.approx(
        (39.3, 60.7), abs=0.1
    )  # Wilson
    motion, frames = result["needs"]["motion"], result["needs"]["frames"]
    assert (motion["value"], frames["value"]) == pytest.approx((40, 65))
    assert motion["low"] < 32 and 48 < motion["high"] < 60
    assert "needs motion      40.0 of 90.0 points [" in "\n".join(audit_table(result))
    by_person = found(guesses(shuffled=wrong(40)), people=[f"S{i // 10}" for i in range(80)])
    assert by_person["people"] == 8 and by_person["needs"]["motion"]["high"] > 75  # half of the persons lose everything
    assert "by person (8)" in audit_table(by_person)[0]


def test_a_model_whose_guesses_do_not_depend_on_the_order_needs_no_motion() -> None:
    plain = wrong(20)
    result = found(guesses(plain=plain, reversed=plain, shuffled=plain, frozen=wrong(70)))
    motion = result["needs"]["motion"]
    assert motion["value"] == 0 and motion["low"] == -motion["high"] and motion["high"] < 5
    assert result["needs"]["frames"]["value"] == 62.5


def test_classes_that_swap_are_named_and_so_are_those_that_stay() -> None:
    result = found(guesses(mirrored=SWAP[LABELS], reversed=np.where(LABELS == 0, 3, LABELS)))
    assert result["mirrored"] == [
        ["wave", "wave", 20, 20],
        ["swipe left", "swipe right", 40, 40],
        ["point"] * 2 + [20, 20],
    ]
    # all of "wave" becomes "point", which does not become "wave"
    assert [row[:2] for row in result["reversed"]] == [[name, name] for name in NAMES[1:]]
    assert result["classes"][1] == {
        **{"name": "swipe left", "recognised": 20},
        **{"mirrored": "swipe right", "mirrored_clips": 20, "reversed": "swipe left", "reversed_clips": 20},
    }
    assert json.loads(json.dumps(result)) == result and result["warnings"] == []
    lines = audit_table(result)
    assert "mirror images     swipe left and swipe right (40 of 40)" in lines
    assert "own mirror image  wave, point" in lines and "time reversals    none for certain" in lines


def test_the_block_can_be_pasted_and_flips_what_is_known_only() -> None:
    data = yaml.safe_load(found(guesses(mirrored=SWAP[LABELS]))["flip_config"])["DATA"]
    assert data.pop("RANDOM_FLIP") is True and [*data] == ["FLIP_LABEL_MAP"]
    assert flip_label_map(data["FLIP_LABEL_MAP"], NAMES) == dict(enumerate(SWAP))
    # the mirror image of "point" is no class
    data = yaml.safe_load(found(guesses(mirrored=np.where(LABELS == 3, 0, SWAP[LABELS])))["flip_config"])["DATA"]
    assert data["FLIP_ONLY_MAPPED"] is True and data["FLIP_LABEL_MAP"][0] == ["swipe left", "swipe right"]
    assert flip_label_map(data["FLIP_LABEL_MAP"], NAMES).keys() == {0, 1, 2}
    nothing = found(guesses(mirrored=np.zeros_like(LABELS) + 3, plain=(LABELS + 1) % 4))
    assert nothing["flip_config"] == "" and not any("to flip" in line for line in audit_table(nothing))


@pytest.mark.parametrize("names", [[], ["same", "same", "left", "right"]])
def test_without_names_of_their_own_classes_go_by_label(names: list[str]) -> None:
    result = audit(LABELS.tolist(), guesses(mirrored=SWAP[LABELS]), names, 4)
    assert result["flip_label_map"] == [[1, 2], [0, 0], [3, 3]]


def images(moved: tuple[int, int], clips: tuple[int, int] = (20, 20), num_classes: int = 4) -> list[Image]:
    """Of two classes, so many clips of which are called the other one when mirrored; the others become a third."""
    labels = np.repeat([0, 1], clips)
    changed = np.concatenate([np.where(np.arange(clips[a]) < moved[a], 1 - a, 2) for a in (0, 1)])
    return find_images(labels, labels, changed, num_classes)


def test_a_pair_needs_more_than_half_both_ways_and_more_than_chance() -> None:
    """Of 40 clips, 29 have a two-sided p of 0.0064 and 28 of 0.0166; times the number of classes it is to be 0.05."""
    assert images((15, 14)) == [Image(0, 1, 29, 40)] and images((14, 14)) == []
    assert images((14, 14), num_classes=3) == [Image(0, 1, 28, 40)] and images((15, 14), num_classes=8) == []
    assert images((20, 10)) == [] and images((20, 11)) == [Image(0, 1, 31, 40)]
    assert images((4, 4), (4, 4)) == [Image(0, 1, 8, 8)] and images((3, 3), (3, 3)) == []
    assert images((0, 20), (0, 20)) == []


def test_clips_that_are_not_recognised_say_nothing() -> None:
    plain = wrong(16)  # four of each class
    mirrored = np.where(np.arange(80) < 16, 3, SWAP[LABELS])
    result = found(guesses(plain=plain, mirrored=mirrored))
    assert [row[2:] for row in result["mirrored"]] == [[16, 16], [32, 32], [16, 16]]


def test_a_model_that_cannot_tell_mirror_images_apart_does_not_make_them_their_own() -> None:
    """Blind to the direction, it calls half of either class by the other's name, and stays with it when mirrored."""
    coin = np.where((np.arange(80) // 4) % 2 == 0, LABELS, SWAP[LABELS])
    result = found(guesses(plain=coin, mirrored=coin, reversed=coin))
    assert result["flip_label_map"] == [["wave", "wave"], ["point", "point"]]
    one_way = np.where(LABELS == 2, 1, LABELS)  # all are called "swipe left"
    assert [row[0] for row in found(guesses(plain=one_way, mirrored=one_way))["mirrored"]] == ["wave", "point"]


def test_chance_names_no_pair() -> None:
    """Of 300 models that call mirrored clips one of two classes by chance, at most the promised share names any."""
    generator, named = np.random.default_rng(0), 0
    labels = np.repeat(np.arange(12), 20)
    for _ in range(300):
        changed = np.where(generator.random(240) < 0.5, labels, labels ^ 1)
        named += any(find_images(labels, labels, changed, 12))
    assert named <= 0.05 * 300


def test_what_a_training_with_flips_has_taught_is_no_evidence_and_what_contradicts_it_is_a_warning() -> None:
    everything = range(4)
    same = found(guesses(), flipped=everything)
    assert same["flip_label_map"] == [] and same["unknown"] == NAMES and same["warnings"] == []
    line = "not known         the training flipped clips of wave, swipe left, swipe right, point: they stay"
    assert line in "\n".join(audit_table(same))
    mapped = dict(enumerate(SWAP.tolist()))
    right = found(guesses(mirrored=SWAP[LABELS]), flipped=everything, mapped=mapped)
    assert right["warnings"] == right["unknown"] == [] and len(right["flip_label_map"]) == 3
    only = found(guesses(mirrored=SWAP[LABELS]), flipped=[1, 2], mapped={1: 2, 2: 1})
    assert only["warnings"] == only["unknown"] == [] and len(only["flip_label_map"]) == 3
    pair, point = "'swipe left' and 'swipe right'", "[point, point]"
    for against, listed, pairs in (
        ({}, pair, "[[swipe left, swipe right]]"),
        ({1: 1, 2: 3, 3: 2}, f"{pair}, 'point'", f"[[swipe left, swipe right], {point}]"),
    ):
        (warning,) = found(guesses(mirrored=SWAP[LABELS]), flipped=everything, mapped=against)["warnings"]
        assert "DATA.RANDOM_FLIP True" in warning and f": {listed}. If they are mirror images" in warning
        assert f'DATA.FLIP_LABEL_MAP needs "{pairs}", or train with DATA.RANDOM_FLIP False' in warning


def test_flips_with_the_wrong_label_make_a_model_that_takes_mirror_images_for_each_other() -> None:
    """It stays with its guess when the clip is mirrored, so that only its confusions tell."""
    coin = np.where((np.arange(80) // 4) % 2 == 0, LABELS, SWAP[LABELS])
    table = guesses(plain=coin, mirrored=coin)
    (warning,) = found(table, flipped=range(4))["warnings"]
    assert "'swipe left' and 'swipe right'" in warning and "confused with the other in both directions" in warning
    assert found(table)["warnings"] == []  # trained without flips
    one_way = np.where((LABELS == 1) & (coin == 2), 1, coin)
    assert found(guesses(plain=one_way, mirrored=one_way), flipped=range(4))["warnings"] == []


@pytest.mark.parametrize(
    ("setting", "num_videos", "num_views", "wanted"),
    [("auto", 240, 3, True), ("auto", 2000, 3, True), ("auto", 2001, 30, False), ("auto", 300, 1, True),
     ("auto", 301, 2, False), (True, 10**5, 1, True), (False, 1, 3, False)],
)  # fmt: skip
def test_audits_are_made_of_small_lists(setting: str | bool, num_videos: int, num_views: int, wanted: bool) -> None:
    assert worth_auditing(setting, num_videos, num_views) is wanted
