"""Lists as people write them: separators, headers, ids, numbers for classes; one video has one label and split."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.curation.layouts import find_clips
from timesformer.utils.errors import DataListError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a 1.mp4", "b.mp4", "c.mp4", "d.mp4"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / name).touch()
    return tmp_path


def found(root: Path) -> set[tuple[str, ...]]:
    return {(Path(c.record.path).stem, c.label, c.split, c.subject, c.scene) for c in find_clips(str(root)).clips}


@pytest.mark.parametrize(
    "text",
    [
        "a 1.mp4 wave\nb.mp4 circle\n",
        "a 1.mp4,wave\nb.mp4,circle\n",
        "file;action\na 1.mp4;wave\nb.mp4;circle\n",
        "clip location\tgesture name\na 1.mp4\twave\nb.mp4\tcircle\n",  # a header with names of its own
        "video_id,class,other\na 1,wave,7\nb,circle,8\n",
        "videos\\a 1.mp4,wave\nvideos\\b.mp4,circle\n",
    ],
)
def test_one_list_in_any_form(root: Path, text: str) -> None:
    (root / "annotation.txt").write_text(text)
    (root / "readme.txt").write_text("Two videos.\nNothing else.\n")
    assert found(root) == {("a 1", "wave", "", "", ""), ("b", "circle", "", "", "")}
    clips = find_clips(str(root))
    assert clips.layout == "lists: annotation.txt" and "2 videos that the lists do not name" in " ".join(clips.notes)
    assert len(find_clips(str(root / "annotation.txt")).clips) == 2


def test_a_list_for_each_split_with_people_and_missing_videos(root: Path) -> None:
    (root / "metadata").mkdir()
    (root / "metadata/train_list.csv").write_text("path,label,person,room\na 1.mp4,wave,p1,hall\nb.mp4,up,p2,hall\n")
    (root / "metadata/test_list.csv").write_text("path,label,person,room\nc.mp4,up,p3,lab\ngone.mp4,up,p3,lab\n")
    assert found(root) == {
        *(("a 1", "wave", "train", "p1", "hall"), ("b", "up", "train", "p2", "hall"), ("c", "up", "test", "p3", "lab")),
    }
    assert "1 videos do not exist" in " ".join(find_clips(str(root)).notes)


def test_frame_folders_by_number_and_labels_of_several_words(tmp_path: Path) -> None:
    for number in ("34870", "56557", "129112"):
        for frame in (1, 2):
            (tmp_path / "20bn-jester-v1" / number).mkdir(parents=True, exist_ok=True)
            (tmp_path / "20bn-jester-v1" / number / f"{frame:05}.jpg").touch()
    (tmp_path / "jester-v1-train.csv").write_text("34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n")
    (tmp_path / "jester-v1-validation.csv").write_text("129112;Drumming Fingers\n")
    assert found(tmp_path) == {
        ("34870", "Drumming Fingers", "train", "", ""),
        ("56557", "Sliding Two Fingers Right", "train", "", ""),
        ("129112", "Drumming Fingers", "val", "", ""),
    }
    assert all(len(clip.record.frames) == 2 for clip in find_clips(str(tmp_path)).clips)


def test_numbers_get_the_names_of_a_file_or_of_the_folders(root: Path) -> None:
    (root / "train.csv").write_text("a 1.mp4 1\nb.mp4 0\n")
    assert {label for _, label, *_ in found(root)} == {"0", "1"}
    (root / "classes.txt").write_text("up\ndown\n")
    assert {name: label for name, label, *_ in found(root)} == {"a 1": "down", "b": "up"}
    (root / "classes.txt").unlink()
    for folder, name in (("left", "x"), ("right", "y")):
        (root / folder).mkdir()
        (root / folder / f"{name}.mp4").touch()
    (root / "train.csv").write_text("left/x.mp4 7\nright/y.mp4 9\n")
    assert {name: label for name, label, *_ in found(root)} == {"x": "left", "y": "right"}


def test_a_split_column_and_a_manifest_as_the_source(root: Path) -> None:
    (root / "videos.csv").write_text("path,label,split\nvideos/b.mp4,up,train\nvideos/c.mp4,down,Validation\n")
    assert found(root) == {("b", "up", "train", "", ""), ("c", "down", "val", "", "")}


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("b.mp4 up\nc.mp4 up\n", "b.mp4 up\n", "b.mp4 is up for train in train.csv:1, but up for test in test.csv:1"),
        ("b.mp4 up\nb.mp4 down\n", "", "b.mp4 is up for train in train.csv:1, but down for train in train.csv:2"),
        ("x.mp4 up\ny.mp4 down\n", "", r"train.csv: none of its videos exists, such as .*x.mp4"),
        ("path,label,split\nb.mp4,up,now\n", "", r"train.csv:2: split 'now' is none of train, val, test"),
        ("path,label\nb.mp4,\n", "", r"train.csv:2: should be a path and a label, found 'b.mp4'"),
        (
            "label,youtube_id,split\nup,x,train\n",
            "",
            r"(?s)no column for the path .*or move it away to go by the folders",
        ),
    ],
)
def test_contradictions_name_both_lines(root: Path, train: str, test: str, message: str) -> None:
    (root / "train.csv").write_text(train)
    if test:
        (root / "test.csv").write_text(test)
    with pytest.raises(DataListError, match=message):
        find_clips(str(root))
