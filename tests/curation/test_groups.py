"""People and scenes by patterns: guessed only where numbered words are clear, given patterns hold for every path."""

from __future__ import annotations

import pytest

from timesformer.curation.groups import guess_pattern, with_groups
from timesformer.curation.layouts import Clip
from timesformer.datasets.records import VideoRecord
from timesformer.utils.errors import DataListError


def clips(pattern: str, people: int = 3) -> list[Clip]:
    """Two clips of each person and of each of two classes, `pattern` with {c}, {p} and {i}."""
    keys = [(c, p, i) for c in ("up", "down") for p in range(1, people + 1) for i in (1, 2)]
    return [Clip(VideoRecord("", -1, ""), pattern.format(c=c, p=p, i=i), c) for c, p, i in keys]


@pytest.mark.parametrize(
    ("pattern", "role", "first"),
    [
        ("subject0{p}/{c}_{i}.mp4", "subject", "subject01"),
        ("{c}/s0{p}_{i}.mp4", "subject", "s01"),
        ("{c}/P{p}-clip{i}.avi", "subject", "P1"),
        ("{c}/kitchen {p}_{i}.avi", "scene", "kitchen 1"),
        ("{c}/v_x_g0{p}_c0{i}.avi", "scene", "g01"),
    ],
)
def test_numbered_words_are_guessed_and_said(pattern: str, role: str, first: str) -> None:
    found, origins = with_groups(clips(pattern))
    assert getattr(found[0], role) == first and len({getattr(clip, role) for clip in found}) == 3
    assert origins.keys() == {role} and origins[role].startswith(f"guessed --{role} '")
    again, _ = with_groups(found, **{role: origins[role].split("'")[1]})  # what is shown gives the same
    assert again == found


@pytest.mark.parametrize(
    "pattern",
    ["{c}/clip{p}_{i}.mp4", "{c}/p1_{p}{i}.mp4", "{c}/laps{p}_{i}.mp4", "{c}/{p}_{i}.mp4"],
)
def test_what_is_not_clear_is_not_guessed(pattern: str) -> None:
    assert with_groups(clips(pattern))[1] == {}


def test_numbers_of_classes_and_of_clips_are_no_people() -> None:
    words = "person|p|s"
    assert guess_pattern(["p1/x", "p1/y", "p2/z", "p2/w"], ["a", "a", "b", "b"], words) == ""
    assert guess_pattern(["x_p1", "y_p2", "z_p3", "w_p4"], ["a", "b", "a", "b"], words) == ""


def test_a_pattern_is_given_or_switched_off() -> None:
    found, origins = with_groups(clips("{c}/s{p}_{i}.mp4"), subject="", scene=r"^\w+/(s\d)")
    assert {clip.subject for clip in found} == {""} and {clip.scene for clip in found} == {"s1", "s2", "s3"}
    assert origins == {"scene": r"by --scene '^\w+/(s\d)'"}
    with pytest.raises(DataListError, match=r"--subject 'q' finds nothing in 12 of 12 paths"):
        with_groups(clips("{c}/s{p}_{i}.mp4"), subject="q")
