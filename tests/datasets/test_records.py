"""Records of videos, and list files: how they are read and how their problems are reported."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.datasets.files import list_pictures, natural_key
from timesformer.datasets.kinetics import Kinetics, split_line
from timesformer.datasets.list_files import find_list
from timesformer.datasets.records import (
    VideoList,
    VideoRecord,
    coverage_warnings,
    fingerprint,
    load_class_names,
    missing_table,
    split_missing,
)
from timesformer.utils.errors import DataListError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


def read_list(path: str, names: Sequence[str] = (), **options: Any) -> VideoList:
    settings = {"data_dir": os.path.dirname(path), "split": "train", "num_classes": 12, **options}
    return Kinetics(**settings).read(path, names)


def labels_by_path(path: str, **options: Any) -> dict[str, object]:
    found = read_list(path, **{"prefix": "/clips", **options})
    return {os.path.relpath(r.path, "/clips"): r.label for r in found.records}


def error_of(path: str, **options: Any) -> str:
    with pytest.raises(DataListError) as caught:
        read_list(path, **{"prefix": "/clips", **options})
    return str(caught.value)


def test_defect_18_a_path_may_contain_spaces_and_separators(tmp_path: Path) -> None:
    spaces = write(tmp_path / "a.csv", "riding a bike/my clip.mp4 3\nplain.mp4   4\n")
    assert labels_by_path(spaces) == {"riding a bike/my clip.mp4": 3, "plain.mp4": 4}
    commas = write(tmp_path / "b.csv", 'a, b/c.mp4,3\n"d, e.mp4","4"\n')
    assert labels_by_path(commas, separator=",") == {"a, b/c.mp4": 3, "d, e.mp4": 4}


def test_defect_18_a_broken_line_is_reported_with_its_number(tmp_path: Path) -> None:
    message = error_of(write(tmp_path / "train.csv", "a.mp4 1\n\nmy clip.mp4\nb.mp4 2\n"))
    assert "train.csv:3" in message and "clip.mp4" in message


@given(
    path=st.text(st.characters(codec="utf-8", exclude_characters='"\r\n#', exclude_categories=("C", "Z")), min_size=1),
    label=st.integers(0, 399),
    separator=st.sampled_from([" ", ",", "\t", ";"]),
)
def test_any_path_comes_back(path: str, label: int, separator: str) -> None:
    path = f"{path}{separator}{path}.mp4"
    assert split_line(f"{path}{separator}{label}", separator) == (path, str(label))


def test_all_problems_are_in_one_message_with_line_numbers(tmp_path: Path) -> None:
    text = "ok.mp4 0\nhigh.mp4 12\nlow.mp4 -1\nword.mp4 walk\nhalf.mp4 1.5\nnothing.mp4\nok.mp4 1\n"
    message = error_of(write(tmp_path / "train.csv", text))
    assert message.startswith("6 problems in ")
    for line in (2, 3, 4, 5, 6, 7):
        assert f"train.csv:{line}:" in message
    assert "label 12 is out of range 0..11" in message
    assert "train.csv:1 gives the same video label 0" in message
    assert "MODEL.NUM_CLASSES 13" in message


def test_an_empty_label_is_reported(tmp_path: Path) -> None:
    assert "a.csv:2: label ''" in error_of(write(tmp_path / "a.csv", "a.mp4,1\nb.mp4,\n"), separator=",")


def test_problems_of_one_cause_are_one_message_with_their_number_and_examples(tmp_path: Path) -> None:
    message = error_of(write(tmp_path / "train.csv", "".join(f"{i}.mp4 99\n" for i in range(50))))
    assert "50 problems" in message and "50 times: a label is out of range 0..11, such as" in message
    assert "train.csv:3: label 99" in message and "train.csv:4" not in message


def test_labels_that_count_from_one_are_recognised(tmp_path: Path) -> None:
    assert "count from 0" in error_of(write(tmp_path / "a.csv", "a.mp4 1\nb.mp4 12\n"))


def test_the_right_separator_is_named_with_the_override(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "my dir/a.mp4,1\nb.mp4,2\n")
    assert "a.csv:2" in error_of(path) and "DATA.PATH_LABEL_SEPARATOR ," in error_of(path)
    tabs = write(tmp_path / "b.csv", "a.mp4\t1\nb.mp4\t2\n")
    assert r"DATA.PATH_LABEL_SEPARATOR '\t'" in error_of(tabs)
    assert labels_by_path(tabs, separator=r"\t") == {"a.mp4": 1, "b.mp4": 2}


def test_a_header_is_skipped_with_a_warning(tmp_path: Path) -> None:
    found = read_list(write(tmp_path / "a.csv", "path,label\na.mp4,1\n"), separator=",")
    assert [r.source for r in found.records] == ["a.csv:2"]
    assert found.warnings[0].startswith("a.csv:1: skipped as a header")
    assert "no videos" in error_of(write(tmp_path / "b.csv", "path label\n"))


def test_a_video_without_label_on_line_one_is_no_header(tmp_path: Path) -> None:
    assert "a.csv:1" in error_of(write(tmp_path / "a.csv", "my clip.mp4\nb.mp4 2\n"))


def test_further_columns_are_reported(tmp_path: Path) -> None:
    kinetics = "label,youtube_id,time_start,time_end,split\nabseiling,xyz,59,69,train\n"
    assert "keep two" in error_of(write(tmp_path / "a.csv", kinetics), separator=",")
    assert "keep two" in error_of(write(tmp_path / "b.csv", "clips/a 120 3\nclips/b 80 4\n"))


def test_bom_windows_line_ends_comments_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\ufeffä.mp4 1\r\n\r\n# b.mp4 2\r\nc.mp4 3\r\n")
    assert labels_by_path(path) == {"ä.mp4": 1, "c.mp4": 3}


def test_an_empty_list_and_one_that_is_no_text(tmp_path: Path) -> None:
    assert "is empty" in error_of(write(tmp_path / "a.csv", "\n# nothing\n"))
    (tmp_path / "b.csv").write_bytes(b"a.mp4 1\n\xff\xfe\x00\n")
    assert "b.csv:2: not UTF-8" in error_of(str(tmp_path / "b.csv"))


def test_duplicate_rows_are_kept_once_and_both_lines_named(tmp_path: Path) -> None:
    found = read_list(write(tmp_path / "a.csv", "a.mp4 1\nb.mp4 2\na.mp4 1\n"))
    assert [r.source for r in found.records] == ["a.csv:1", "a.csv:2"]
    assert found.warnings == ["a.csv:3: same video as a.csv:1, kept once (a.mp4)"]


def test_several_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a.mp4 3,1\nb.mp4 2;5\na.mp4 7\n")
    assert labels_by_path(path, multi_label=True) == {"a.mp4": (1, 3, 7), "b.mp4": (2, 5)}
    assert "out of range" in error_of(path, multi_label=True, num_classes=6)
    commas = write(tmp_path / "b.csv", "a.mp4,3\nb.mp4,1,2\n")
    assert "b.csv:2: several labels? put ; between them: 'b.mp4,1,2'" in error_of(
        commas, multi_label=True, separator=","
    )


def test_names_may_stand_for_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a.mp4 walk\nb.mp4 1\n")
    assert labels_by_path(path, names=["walk", "run"]) == {"a.mp4": 0, "b.mp4": 1}


def test_relative_paths_prefix_then_working_folder_then_folder_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "lists/train.csv", "a.mp4 1\n")
    write(tmp_path / "lists/a.mp4", "")
    monkeypatch.chdir(tmp_path)
    beside = read_list(path, data_dir=str(tmp_path / "lists"))
    assert beside.records[0].path == str(tmp_path / "lists/a.mp4") and not beside.warnings
    write(tmp_path / "a.mp4", "")
    here = read_list(path)
    assert here.records[0].path == "a.mp4" and not here.warnings
    assert read_list(path, prefix="/elsewhere").records[0].path == "/elsewhere/a.mp4"


def test_a_doubtful_choice_of_the_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "lists/train.csv", "a.mp4 1\nb.mp4 1\n")
    write(tmp_path / "lists/a.mp4", "")
    for missing_or_in_two in range(2):
        (warning,) = read_list(path).warnings
        assert "DATA.PATH_PREFIX is not set" in warning and str(tmp_path / "lists") in warning, missing_or_in_two
        write(tmp_path / "lists/b.mp4", "")
        write(tmp_path / "b.mp4", "")


def test_a_list_given_as_the_data_folder_is_reported_with_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "a.mp4 1\n")
    with pytest.raises(DataListError, match="is a file. Type DATA.PATH_TO_DATA_DIR ") as caught:
        find_list(path, ["train.csv"], advice="")
    assert str(caught.value).endswith(f" {tmp_path}")


def test_a_folder_of_pictures_becomes_frames_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (10, 2, 1):
        write(tmp_path / f"clip/frame_{number}.jpg", "")
    write(tmp_path / "clip/notes.txt", "")
    (tmp_path / "bare").mkdir()
    monkeypatch.setattr(Kinetics, "frame_fps", 15.0)
    found = read_list(write(tmp_path / "a.csv", "clip 1\nbare 2\n"))
    clip, bare = found.records
    assert [Path(f).name for f in clip.frames] == ["frame_1.jpg", "frame_2.jpg", "frame_10.jpg"]
    assert (clip.fps, bare.fps, bare.frames) == (15.0, 0.0, ())
    assert any("without pictures" in line for line in found.warnings)
    assert list_pictures(str(tmp_path / "clip")) == clip.frames


def test_natural_order() -> None:
    assert sorted(["G10", "g2", "G1", "1"], key=natural_key) == ["1", "G1", "g2", "G10"]


def test_missing_files_are_split_off_and_reported_in_one_table(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", "")
    (tmp_path / "frames").mkdir()
    there = [VideoRecord(str(tmp_path / name), 0, "train.csv:1") for name in ("a.mp4", "frames/")]
    gone = [VideoRecord(str(tmp_path / f"x/{i}.mp4"), 0, f"train.csv:{i}") for i in range(30)]
    assert split_missing([*there, *gone]) == (there, gone)
    table = missing_table(gone)
    assert table.splitlines()[0].split() == ["listed", "in", "path", "tried"]
    assert "train.csv:7" in table and gone[7].path in table and "and 10 more" in table
    assert "no extension" not in table.lower()
    assert "ID.mp4" in missing_table([VideoRecord("-3B32lodo2M", 0, "train.csv:1")])


def test_fingerprint_depends_on_names_labels_and_order_but_not_on_the_machine() -> None:
    a, b = VideoRecord("/one/c/a.mp4", 0, "l:1"), VideoRecord("/one/c/b.mp4", 1, "l:2")
    there = VideoRecord("D:\\two\\c\\a.mp4", 0, "m:9")
    assert fingerprint([a]) == fingerprint([there])
    assert len({fingerprint(each) for each in ([a, b], [b, a], [a], [VideoRecord(a.path, 1, "")])}) == 4
    assert fingerprint([a, b]).endswith("2 videos, class:count 0:1 1:1")


def test_classes_without_video_are_counted() -> None:
    records = [VideoRecord("a", 0, ""), VideoRecord("b", 2, "")]
    assert coverage_warnings(records[:1], 1, "train.csv") == []
    (line,) = coverage_warnings(records, 12, "train.csv")
    assert "10 of 12 classes" in line and "MODEL.NUM_CLASSES 3" in line
    named = coverage_warnings(records, 4, "val list", ["left", "right", "up", "down"])
    assert named == ["val list: 2 of 4 classes have no video: 1 (right), 3 (down)"]


def test_class_names_from_text_and_json(tmp_path: Path) -> None:
    text = write(tmp_path / "names.txt", "walk\nride a bike\n")
    by_name = write(tmp_path / "names.json", json.dumps({'"ride a bike"': 1, "walk": 0}))
    assert load_class_names(text, 2) == load_class_names(by_name, 2) == ["walk", "ride a bike"]
    with pytest.raises(DataListError, match=r"2 classes, but MODEL.NUM_CLASSES is 3"):
        load_class_names(text, 3)
    with pytest.raises(DataListError, match="labels are not 0"):
        load_class_names(write(tmp_path / "gap.json", '{"a": 0, "b": 2}'), 2)
    with pytest.raises(DataListError, match="nowhere"):
        load_class_names(str(tmp_path / "nowhere.txt"), 2)
