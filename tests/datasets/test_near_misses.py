"""Lists that nearly fit: one message for one cause, with how many, an example and the remedy."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import load_list
from timesformer.datasets.records import VideoList
from timesformer.utils.errors import DataListError

COUNT = 40
ACCENT = "caf\u00e9"


def load(root: Path, text: str | bytes, *, name: str = "train.csv") -> VideoList:
    """The list of the videos `left/0.mp4 ... left/39.mp4` and of the same in a folder with an accent, or its error."""
    for folder in ("left", "a b", ACCENT):
        (root / "data" / folder).mkdir(parents=True, exist_ok=True)
        for i in range(COUNT):
            (root / "data" / folder / f"{i}.mp4").touch()
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    cfg = get_cfg()
    prefix = ["DATA.PATH_PREFIX", str(root / "data")]
    cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", str(root), *prefix, "MODEL.NUM_CLASSES", 3])
    return load_list(cfg, "train")


def lines(pattern: str, count: int = COUNT) -> str:
    return "".join(pattern.replace("{i}", str(i)).replace("{k}", str(i % 3)) + "\n" for i in range(count))


CASES = {
    "backslashes": (r"left\{i}.mp4 {k}", "They exist with / in place of \\", "sed -i"),
    "other quotes": ("'left/{i}.mp4' {k}", "without the quotes", 'Only "'),
    "NFD": (unicodedata.normalize("NFD", ACCENT) + "/{i}.mp4 {k}", "(Unicode NFC or NFD)", "with find"),
    "URL": ("a%20b/{i}.mp4 {k}", "with %20 and the like decoded", "plain paths"),
    "file URL": ("file://{root}/data/left/{i}.mp4 {k}", "without file://", "plain paths"),
    "capitals": ("left/{i}.MP4 {k}", "with capital letters as in the names", "rename"),
    "extension": ("left/{i}.avi {k}", "with another extension", "Correct the extensions"),
    "no extension": ("left/{i} {k}", "with another extension", "Correct the extensions"),
    "home": ("~/data/left/{i}.mp4 {k}", "with ~ or $NAME expanded", "DATA.PATH_PREFIX"),
    "variable": ("$MY_ROOT/data/left/{i}.mp4 {k}", "with ~ or $NAME expanded", "DATA.PATH_PREFIX"),
    "other machine": ("/mnt/anna/videos/left/{i}.mp4 {k}", "not in /mnt/anna/videos/", "add: DATA.PATH_PREFIX"),
    "folder twice": ("data/left/{i}.mp4 {k}", "in {root}, not in {root}/data/", "add: DATA.PATH_PREFIX {root}"),
    "folder missing": ("{i}.mp4 {k}", "in {root}/data/", "Add: DATA.PATH_PREFIX {root}/data/"),
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "cause", "remedy"), CASES.values(), ids=CASES)
def test_paths_that_exist_when_written_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, cause: str, remedy: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MY_ROOT", str(tmp_path))
    with pytest.raises(DataListError) as caught:
        load(tmp_path, lines(pattern.replace("{root}", str(tmp_path))))
    *_, last = str(caught.value).splitlines()
    assert cause.replace("{root}", str(tmp_path)) in last and remedy.replace("{root}", str(tmp_path)) in last
    assert str(caught.value).startswith("40 of the 40 videos of the train list do not exist")


LABELS = {
    "names": ("left/{i}.mp4 walk{k}", "The labels are 3 names (walk0, walk1, walk2)", "DATA.CLASS_NAMES_PATH FILE"),
    "swapped": ("{k} left/{i}.mp4", "The columns seem to be swapped", "a path, then its label"),
    "swapped names": ("walk{k} left/{i}.mp4", "The columns seem to be swapped", "a path, then its label"),
    "decimals": ("left/{i}.mp4 {k}.0", "Labels are whole numbers: write 0, not 0.0", ""),
    "quotes": ("'left/{i}.mp4' '{k}'", "Only double quotes can stand around a label", "or none"),
    "several": ("left/{i}.mp4 {k},1", "several labels", "DATA.MULTI_LABEL True"),
    "one path only": ("left/{i}.mp4", "no separator between path and label", ""),
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "cause", "remedy"), LABELS.values(), ids=LABELS)
def test_labels_that_are_wrong_for_one_reason(tmp_path: Path, pattern: str, cause: str, remedy: str) -> None:
    with pytest.raises(DataListError) as caught:
        load(tmp_path, lines(pattern))
    text = str(caught.value)
    assert cause in text and remedy in text and len(text.splitlines()) <= 6 and "train.csv:1: " in text


@pytest.mark.parametrize("separator", [",", ", ", ";", "; ", "|", "\t"])
@pytest.mark.parametrize("label", ["{k}", "walk{k}"])
def test_another_separator_is_found_for_numbers_and_names_and_some_bad_lines(
    tmp_path: Path, separator: str, label: str
) -> None:
    with pytest.raises(DataListError, match=r"Add: DATA.PATH_LABEL_SEPARATOR ['\\,;|t]+$"):
        load(tmp_path, lines(f"left/{{i}}.mp4{separator}{label}") + "oops\n")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_marks_of_any_system(tmp_path: Path, line_end: str, encoding: str) -> None:
    found = load(tmp_path, lines(ACCENT + "/{i}.mp4 {k}").replace("\n", line_end).encode(encoding))
    assert len(found.records) == COUNT and found.warnings == []


@pytest.mark.parametrize("name", ["train.txt", "Train.csv", "training.csv", "train_list.txt"])
def test_a_list_under_another_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataListError) as caught:
        load(tmp_path, lines("left/{i}.mp4 {k}"), name=name)
    assert f"rename it: mv {tmp_path / name} {tmp_path / 'train.csv'}" in str(caught.value)


def test_a_hash_begins_a_comment_unless_a_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "data/#left").mkdir(parents=True)
    (tmp_path / "data/#left/0.mp4").touch()
    (tmp_path / "data/#1 a.mp4").touch()
    found = load(tmp_path, "#left/0.mp4 1\n# left/1.mp4 2\n#1 a.mp4 2\nleft/0.mp4 0\n")
    assert [(r.label, r.source) for r in found.records] == [(1, "train.csv:1"), (2, "train.csv:3"), (0, "train.csv:4")]


def test_one_real_file_is_one_record_and_two_labels_name_both(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to("left")
    (tmp_path / "data/1.mp4").symlink_to("left/1.mp4")
    found = load(tmp_path, "left/0.mp4 0\n./left/0.mp4 0\nlink/0.mp4 0\nleft/1.mp4 1\n1.mp4 1\nlink/../left/1.mp4 1\n")
    assert [r.source for r in found.records] == ["train.csv:1", "train.csv:4"] and len(found.warnings) == 4
    with pytest.raises(
        DataListError,
        match=r"train.csv:2: label 1, but train.csv:1 gives the same video label 0 \(.*link/0.mp4, .*left/0.mp4\)",
    ):
        load(tmp_path, "left/0.mp4 0\nlink/0.mp4 1\n")


def test_rows_of_system_files_are_left_out_and_named(tmp_path: Path) -> None:
    found = load(tmp_path, "left/0.mp4 0\nleft/._0.mp4 0\n__MACOSX/left/0.mp4 1\n")
    assert len(found.records) == 1
    assert found.warnings == ["train.csv: left out: 2 rows of hidden or system files: ._0.mp4, 0.mp4"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/data/caf\xe9")
    open(os.fsencode(tmp_path) + b"/data/caf\xe9/0.mp4", "w").close()
    found = load(tmp_path, b"left/0.mp4 0\ncaf\xe9/0.mp4 1\n")
    assert [r.label for r in found.records] == [0, 1] and os.path.exists(found.records[1].path)
    with pytest.raises(DataListError, match=r"40 times: not UTF-8 text \(save the list as plain UTF-8\), such as"):
        load(tmp_path, lines(ACCENT + "/{i}.mp4 0").encode("latin-1").replace(b"caf\xe9/", b"d/\xe9"))


def test_several_picture_series_in_a_listed_folder(tmp_path: Path) -> None:
    for name in ("clip", "odd"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"data/clip/img_{i}.jpg").touch()
        (tmp_path / f"data/clip/flow_x_{i}.jpg").touch()
        (tmp_path / f"data/odd/{i}.jpg").touch()
        (tmp_path / f"data/odd/{i}.png").touch()
    found = load(tmp_path, "clip 0\n")
    assert [os.path.basename(f) for f in found.records[0].frames] == ["img_0.jpg", "img_1.jpg", "img_2.jpg"]
    assert found.warnings == [
        "train.csv: left out: 3 pictures of other series: flow_x_0.jpg, flow_x_1.jpg, flow_x_2.jpg"
    ]
    with pytest.raises(DataListError, match=r"train.csv:1: 2 picture series in one folder: \*.jpg \(3\), \*.png \(3\)"):
        load(tmp_path, "odd 0\n")
