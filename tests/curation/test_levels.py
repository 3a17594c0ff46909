"""Levels of folders and words of names: what they stand for."""

from __future__ import annotations

import pytest

from timesformer.curation.levels import group_of_names, labels_in_names, level_roles


@pytest.mark.parametrize(
    ("folders", "roles"),
    [
        (["p01/left", "p01/right", "p02/left", "p02/right"], ["subject", "label"]),
        (["left/Subject 1", "right/Subject 1", "left/Subject 2"], ["label", "subject"]),
        (["anna/left", "anna/right", "ben/left", "ben/right"], ["subject", "label"]),
        (["left/01", "left/02", "right/01", "right/02"], ["label", "subject"]),
        (["train/s1/a", "train/s1/b", "test/s2/a", "test/s2/b"], ["split", "subject", "label"]),
        (["room1/a", "room1/b", "room2/a", "room2/b"], ["scene", "label"]),
        (["clips/a", "clips/b"], ["", "label"]),  # one folder around all of it
        (["a/clip7", "a/clip8", "b/clip9"], ["label", ""]),  # a folder for each video
        (["Subject1/G1", "Subject1/G2", "Subject2/G1", "Subject2/G2"], ["subject", "label"]),
        (["train/s1", "train/s2", "test/s1"], ["split", "label"]),  # signs
        (["train/a", "train/b", "bus/a"], ["label", ""]),  # a vehicle, not a split
    ],
)
def test_levels(folders: list[str], roles: list[str]) -> None:
    assert level_roles([folder.split("/") for folder in folders]) == roles


def test_names_of_files_say_which_of_two_levels_is_the_class() -> None:
    folders = [[c, p] for p in ("anna", "ben") for c in ("left", "right")]
    assert level_roles(folders, [f"{c}_{p}_clip" for c, p in folders])[1] == "label"  # both are: the inner one
    assert level_roles(folders, [f"{c}_1" for c, _ in folders]) == ["label", "subject"]


def test_folders_of_people_with_the_class_in_the_names_of_files() -> None:
    folders = [["p1", "session2"], ["p1", "session3"], ["p2", "session2"], ["p2", "session3"]]
    assert level_roles(folders, ["left_1", "right_1", "left_2", "right_2"]) == ["subject", "scene"]


def test_numbered_words() -> None:
    assert [group_of_names(names) for names in (["p1", "P02"], ["room-1", "Room 2"], ["p1", "up"], ["1", "2"])] == [
        *("subject", "scene", "", ""),
    ]


def test_words_in_the_names_of_files() -> None:
    assert labels_in_names(["p1_up.mp4", "2 up.mp4", "x/p1-go_down-2.avi", "go_down.avi"]) == [
        *("up", "up", "go down", "go down"),
    ]
    assert labels_in_names(["a/clip_1.mp4", "a/clip_2.mp4"]) == []  # one class is none
    assert labels_in_names(["a.mp4", "b.mp4", "c.mp4"]) == []  # nor is a name for each
