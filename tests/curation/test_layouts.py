"""Folders as people have them: which level is the split, the class, the person; what is left out is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.curation.layouts import Clip, find_clips
from timesformer.utils.errors import DataListError


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def shown(clips: list[Clip]) -> set[tuple[str, ...]]:
    return {(clip.name, clip.label, clip.split, clip.subject, clip.scene) for clip in clips}


def test_class_folders_at_any_depth(tmp_path: Path) -> None:
    found = find_clips(str(make(tmp_path, "left/1.mp4", "left/more/2.avi", "right/3.mkv", "right/notes.txt")))
    assert found.layout.startswith("CLASS/")
    assert shown(found.clips) == {
        ("left/1.mp4", "left", "", "", ""),
        ("left/more/2.avi", "left", "", "", ""),
        ("right/3.mkv", "right", "", "", ""),
    }


def test_split_folders(tmp_path: Path) -> None:
    found = find_clips(str(make(tmp_path, "Train/a/1.mp4", "Train/b/2.mp4", "validation_set/a/3.mp4", "extra/x.mp4")))
    assert found.layout == "SPLIT/CLASS/video"
    assert shown(found.clips) == {
        ("Train/a/1.mp4", "a", "train", "", ""),
        ("Train/b/2.mp4", "b", "train", "", ""),
        ("validation_set/a/3.mp4", "a", "val", "", ""),
    }
    assert any("1 videos beside the folders of the splits: extra/x.mp4" in note for note in found.notes)


def test_frame_folders_are_videos_and_pictures_beside_videos_are_not(tmp_path: Path) -> None:
    files = [f"{c}/{v}/{i}.jpg" for c in ("left", "right") for v in ("v1", "v2") for i in (1, 2, 10)]
    found = find_clips(str(make(tmp_path, *files, "left/cover.jpg", "left/3.mp4", "left/thumbs/3.jpg")))
    frames = {clip.name: [Path(path).name for path in clip.record.frames] for clip in found.clips}
    pictures = ["1.jpg", "2.jpg", "10.jpg"]
    assert frames == {"left/3.mp4": [], **{f"{c}/{v}": pictures for c in ("left", "right") for v in ("v1", "v2")}}
    assert {clip.label for clip in found.clips} == {"left", "right"}


def test_classes_in_the_names_of_files(tmp_path: Path) -> None:
    found = find_clips(
        str(make(tmp_path, *(f"p{p}_{c}_{i}.mp4" for p in (1, 2) for c in ("up", "down") for i in "12")))
    )
    assert found.layout == "video, the class in the names of the files"
    assert {(clip.name, clip.label) for clip in found.clips} >= {("p1_up_1.mp4", "up"), ("p2_down_2.mp4", "down")}


def test_a_pattern_finds_the_class(tmp_path: Path) -> None:
    root = make(tmp_path, "day1/x-up.mp4", "day1/y-down.mp4", "day2/x-up.mp4")
    assert {clip.label for clip in find_clips(str(root), label_pattern=r"-(\w+)\.").clips} == {"up", "down"}
    with pytest.raises(DataListError, match=r"(?s)--label .* finds nothing in 1 of 3 paths:\n  day1/y-down.mp4"):
        find_clips(str(root), label_pattern="x-(.*)[.]")
    with pytest.raises(DataListError, match=r"--label '\(' is not a regular expression"):
        find_clips(str(root), label_pattern="(")


def test_links_runs_and_system_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a/1.mp4", "b/2.mp4", "a/._1.mp4", "b/output/metrics.jsonl", "b/output/clip.mp4")
    (tmp_path / "b/again.mp4").symlink_to(tmp_path / "b/2.mp4")
    found = find_clips(str(tmp_path))
    assert len(found.clips) == 2
    notes = " ".join(found.notes)
    assert "links to videos" in notes and "folders of runs: b/output" in notes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no videos below it, no folders of pictures, and no list"),
        (["a/1.mp4", "a/2.mp4"], r"nothing says the classes of videos such as a/1.mp4. Give each class a folder"),
        (["1.mp4", "left/2.mp4", "left/3.mp4"], "nothing says the classes|2 videos of 1 class"),
    ],
)
def test_what_has_no_classes_says_what_to_do(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataListError, match=message):
        find_clips(str(make(tmp_path, *files)))
    with pytest.raises(DataListError, match="does not exist: name the folder"):
        find_clips(str(tmp_path / "gone"))
