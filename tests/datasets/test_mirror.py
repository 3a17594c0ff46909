"""Mirror images among class names, and the map of labels that a flip swaps."""

from __future__ import annotations

import shlex

import pytest

from timesformer.config import load_config
from timesformer.datasets.gestures.curves import CLASS_NAMES, MIRROR_PAIRS
from timesformer.datasets.mirror import find_mirror_classes, flip_label_map, flip_warnings
from timesformer.utils.errors import ConfigError


@pytest.mark.parametrize(
    ("names", "pairs", "alone"),
    [
        ("left,right,up", [(0, 1)], []),
        ("Swiping Left,Swiping Right,Swiping Up,Stop Sign", [(0, 1)], []),
        ("swipeRight,x,swipeLeft", [(0, 2)], []),
        ("swipeleft,swiperight,leftwards,rightwards", [(0, 1), (2, 3)], []),
        ("turn clockwise,turn counter-clockwise", [(0, 1)], []),
        ("rotate_cw,rotate_ccw,CircleCW,circle anti clockwise", [(0, 1), (2, 3)], []),
        ("hand L,hand R", [(0, 1)], []),
        ("L,R,fist", [(0, 1)], []),
        ("links wischen,rechts wischen,geste à gauche,geste à droite", [(0, 1), (2, 3)], []),
        ("pull from left to right,pull from right to left", [(0, 1)], []),
        ("01_left,02_right,03_up", [(0, 1)], []),
        ("2 fingers left,3 fingers left,2 fingers right,3 fingers right", [(0, 2), (1, 3)], []),
        ("circlecc,square", [], [0]),
        ("circle_clockwise,square", [], [0]),
        ("turn left,turn back,from right to left", [], [0, 2]),
        ("left-right wave,up-down", [], []),
        ("L,M,R", [], []),
        ("letter L,letter R,letter A", [], []),
        ("bright light,cleft,upright,playing links,occ", [], []),
        ("left,left,right", [], [0, 1, 2]),
    ],
)
def test_names_that_are_mirror_images(names: str, pairs: list[tuple[int, int]], alone: list[int]) -> None:
    found = find_mirror_classes(names.split(","))
    assert (found.pairs, found.alone) == (pairs, alone)


def test_the_mirror_images_of_the_generated_gestures_are_found_by_their_names() -> None:
    found = find_mirror_classes(CLASS_NAMES)
    assert found.pairs == list(MIRROR_PAIRS) and found.alone == []


def test_the_map_takes_names_and_labels() -> None:
    names = ["left", "right", "cw", "ccw", "star"]
    assert flip_label_map([["left", "right"], [2, 3], ["star", 4]], names) == {0: 1, 1: 0, 2: 3, 3: 2, 4: 4}
    with pytest.raises(ConfigError, match=r"'Left' is no class; did you mean left\?$"):
        flip_label_map([["Left", "right"]], names)
    with pytest.raises(ConfigError, match=r"'x' is no class; the classes are left, right, cw, ccw, star"):
        flip_label_map([["x", 1]], names)
    with pytest.raises(ConfigError, match="a class may occur in one pair only"):
        flip_label_map([["left", "right"], [0, 3]], names)
    with pytest.raises(ConfigError, match="names of the classes are not known. Type DATA.CLASS_NAMES_PATH"):
        flip_label_map([["left", "right"]], [])


@pytest.mark.parametrize(
    "names",
    [
        ["left", "right", "tick"],
        ["swipe: left", "swipe: right", "it's a [tick], $5"],
        ["circle cw", "circle ccw", "turn clockwise", "star"],
        ["circlecc", "star"],
    ],
)
def test_what_the_warnings_say_to_type_resolves_them(names: list[str]) -> None:
    warnings = flip_warnings(names, [], only_mapped=False)
    words = []
    for line in warnings:
        typed = line.split("Type ")[1].removeprefix("DATA.RANDOM_FLIP False or ").split(" (flips")[0]
        words += shlex.split(typed.split(" or DATA.RANDOM_FLIP")[0])
    data = load_config(None, [*words, "DATA.RANDOM_FLIP", "True"]).cfg.DATA
    assert warnings and data.FLIP_LABEL_MAP
    assert flip_warnings(names, data.FLIP_LABEL_MAP, only_mapped=data.FLIP_ONLY_MAPPED) == []


def test_a_flip_of_mirror_images_is_a_warning() -> None:
    names = ["left", "right", "cw", "ccw", "turn left"]
    pairs, alone = flip_warnings(names, [[2, "ccw"]], only_mapped=False)
    assert "their labels stay: 'left' and 'right'." in pairs
    assert 'Type DATA.FLIP_LABEL_MAP "[[2, ccw], [left, right]]" or DATA.RANDOM_FLIP False' in pairs
    assert "of 'turn left' into another gesture" in alone and "DATA.FLIP_ONLY_MAPPED True (flips" in alone
    assert flip_warnings(names, [["left", "right"], [2, 3], [4, 4]], only_mapped=False) == []
    assert flip_warnings(names, [["left", "right"]], only_mapped=True) == []
    assert flip_warnings(["up", "down"], [], only_mapped=False) == flip_warnings([], [], only_mapped=False) == []
