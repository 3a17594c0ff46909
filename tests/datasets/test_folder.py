"""A folder of classes: split by sub-folders, lists or fractions, and never a subject in two splits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.datasets.media import write_video
from timesformer.config.defaults import get_cfg
from timesformer.datasets.folder import VideoFolder
from timesformer.datasets.records import VideoList
from timesformer.utils.errors import DataListError

SPLITS = ("train", "val", "test")


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def load(root: Path, split: str = "train", **options: object) -> VideoList:
    return VideoFolder(**{"root": str(root), "split": split, "num_classes": 2, **options}).load()  # type: ignore[arg-type]


def names(root: Path, split: str, **options: object) -> list[str]:
    return [Path(r.path).relative_to(root).as_posix() for r in load(root, split, **options).records]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return make(tmp_path, *(f"class{c}/p{p}_{i}.mp4" for c in (1, 2) for p in range(10) for i in range(2)))


def test_fractions_are_stratified_disjoint_and_the_same_in_every_call(people: Path) -> None:
    parts = {split: names(people, split) for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 28, "val": 4, "test": 8}
    assert len(set().union(*parts.values())) == 40
    for part in parts.values():
        assert sum(name.startswith("class1/") for name in part) * 2 == len(part)
    assert parts == {split: names(people, split) for split in SPLITS}
    assert parts["test"] != names(people, "test", seed=1)


def test_the_split_does_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    files = [f"{c}/{i}.mp4" for c in "ab" for i in range(20)]
    assert names(make(tmp_path / "x", *files), "test") == names(make(tmp_path / "y/z", *files), "test")


def test_a_subject_stays_in_one_split(people: Path) -> None:
    subjects = {s: {r.subject for r in load(people, s, subject_pattern=r"/(p\d+)_").records} for s in SPLITS}
    assert [len(subjects[split]) for split in SPLITS] == [7, 1, 2]
    assert len(set().union(*subjects.values())) == 10


def test_a_split_by_subjects_leaves_no_class_out_or_says_so(tmp_path: Path) -> None:
    pattern = {"subject_pattern": r"/(p\d+)_", "num_classes": 3}
    root = make(tmp_path, *(f"class{p % 3}/p{p}_{i}.mp4" for p in range(12) for i in range(2)))
    for split in SPLITS:
        found = load(root, split, **pattern)
        assert {record.label for record in found.records} == {0, 1, 2} and found.warnings == []
    make(root, "rare/p1_9.mp4", "rare/p2_9.mp4")
    for split in SPLITS:
        (line,) = load(root, split, **{**pattern, "num_classes": 4}).warnings
        assert "with these classes in every part: rare (2 subjects). Record them with more subjects" in line


def test_a_path_without_subject_is_named(people: Path) -> None:
    make(people, "class1/stray.mp4")
    with pytest.raises(DataListError, match=r"(?s)1 problem .*class1/stray.mp4.*FOLDER.SUBJECT_PATTERN"):
        load(people, subject_pattern=r"/(p\d+)_")


def test_sub_folders_are_the_splits(tmp_path: Path) -> None:
    root = make(tmp_path, "train/b/1.mp4", "train/a/2.avi", "validation/a/3.mkv")
    assert names(root, "train") == ["train/a/2.avi", "train/b/1.mp4"]
    val = load(root, "val")
    assert [(r.label, r.source) for r in val.records] == [(0, "validation/a")] and val.class_names == [
        "a",
        "b",
    ]
    with pytest.raises(DataListError, match=r"no videos for test \(videos: train 2, val 1\).*TEST.SPLIT val"):
        load(root, "test")
    with pytest.raises(DataListError, match=r"subject '1': is in train and val"):
        load(make(root, "validation/a/1.mp4"), "val", subject_pattern=r"/(\d)\.")
    with pytest.raises(DataListError, match=r"no class of the training videos: \['c'\]"):
        load(make(root, "validation/c/1.mp4"), "val")


def test_lists_are_the_splits(tmp_path: Path) -> None:
    root = make(tmp_path, "walk/1.mp4", "walk/2.mp4", "run/3.mp4")
    (root / "train.csv").write_text("walk/1.mp4 walk\nrun/3.mp4 0\n")
    (root / "test.csv").write_text("walk/2.mp4 1\n")
    train = load(root)
    assert [r.label for r in train.records] == [1, 0] and train.class_names == ["run", "walk"]
    assert names(root, "test") == ["walk/2.mp4"]


def test_frame_folders_nested_folders_and_what_is_left_out(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"a/clip/{i}.png" for i in (10, 9)), "a/deep/er/1.mov", "b/loose.jpg", "b/.hid/1.mp4")
    found = load(root, val_fraction=0, test_fraction=0)
    assert [Path(r.path).name for r in found.records] == ["clip", "1.mov"]
    assert [Path(f).name for f in found.records[0].frames] == ["9.png", "10.png"]
    assert "b: 1 pictures not in a folder per video, left out" in found.warnings
    assert "b: a class folder without videos" in found.warnings


def test_another_number_of_classes_is_reported_with_the_override(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR = str(make(tmp_path, "c10/1.mp4", "c9/1.mp4"))
    with pytest.raises(DataListError, match=r"\(c9, c10\) has 2 classes.*Add: MODEL.NUM_CLASSES 2"):
        VideoFolder.from_config(cfg, "train").load()


def test_class_names_of_the_user_give_the_order(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "a/1.mp4", "b/1.mp4")
    (tmp_path / "names.txt").write_text("b\na\n")
    found = load(root, class_names_path=str(tmp_path / "names.txt"))
    assert [(Path(r.path).parent.name, r.label) for r in found.records] == [("b", 0), ("a", 1)]


def test_no_folder_no_classes_no_validation(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"DATA.PATH_TO_DATA_DIR is ''"):
        VideoFolder(root="", split="train", num_classes=2).load()
    with pytest.raises(DataListError, match="make one per class"):
        load(tmp_path)
    make(tmp_path, "a/1.mp4", "b/1.mp4")
    with pytest.raises(DataListError, match=r"no videos for val.*FOLDER.VAL_FRACTION"):
        load(tmp_path, "val", val_fraction=0)


def warnings_of(root: Path, **options: object) -> str:
    return "\n".join(load(root, **options).warnings)


@pytest.mark.parametrize(
    "junk",
    ["a/._0.mp4", "__MACOSX/a/._0.mp4", ".git/x.mp4", "@eaDir/0.mp4/thumb.jpg", "a/@eaDir/0.mp4", "a/__MACOSX/0.mp4",
     "a/.hid/9.mp4", "output/log.txt", "output/worst/1.png", "docs/readme.md", "$RECYCLE.BIN/1.mp4", "#recycle/1.mp4",
     "Thumbs.db", "a/.DS_Store", "notes/x.txt"],
)  # fmt: skip
def test_junk_is_neither_a_class_nor_a_video(tmp_path: Path, junk: str) -> None:
    root = make(tmp_path, "a/0.mp4", "b/0.mp4", junk)
    if junk.startswith("output"):
        make(root, "output/log.txt", "output/worst/2.png")
    found = load(root, val_fraction=0, test_fraction=0)
    assert found.class_names == ["a", "b"] and [r.label for r in found.records] == [0, 1]


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "a/0.mp4",
        "a/._0.mp4",
        "b/0.mp4",
        *(f"b/{i}.gif" for i in range(6)),
        "output/log.txt",
        "b/n.txt",
        "2.mp4",
    )
    text = warnings_of(root)
    assert "left out: 1 folders that are no classes (without videos, or a run's output): output" in text
    assert "left out: 1 hidden or system files: ._0.mp4" in text
    assert "left out: 7 files of other types: .gif (6), .txt" in text
    assert "left out: 1 videos beside the class folders: 2.mp4" in text


def test_a_type_that_the_decoder_reads_is_said(tmp_path: Path) -> None:
    root = make(tmp_path, "a/0.mp4", "b/0.mp4")
    write_video(root / "a/1.mp4", num_frames=2).rename(root / "a/1.clip")
    assert "left out, although the decoder reads .clip: to use them, list such files in train.csv" in warnings_of(root)


def test_too_many_folders_are_counted_by_those_with_videos(tmp_path: Path) -> None:
    root = make(tmp_path, "a/0.mp4", "b/0.mp4", "c/0.mp4", "docs/x.txt")
    with pytest.raises(
        DataListError, match=r"\(a, b, c; without videos: docs\) has 3 classes, .* Add: MODEL.NUM_CLASSES 3"
    ):
        load(root)


def test_loops_and_aliases_are_one_record_each(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{c}/{i}.mp4" for c in "ab" for i in range(6)))
    before = {split: names(root, split) for split in SPLITS}
    (root / "a/again").symlink_to(".")
    (root / "a/up").symlink_to(root / "a", target_is_directory=True)
    (root / "a/z.mp4").symlink_to("0.mp4")
    assert {split: names(root, split) for split in SPLITS} == before
    text = warnings_of(root)
    assert "left out: 2 links to folders that are listed already: again, up" in text
    assert "left out: 1 links to videos that are listed already: a/z.mp4" in text


@pytest.mark.parametrize("link", ["b/0.mp4", "b/all", "b/deep"])
def test_a_file_in_two_classes_is_an_error_that_names_both(tmp_path: Path, link: str) -> None:
    root = make(tmp_path, "a/x/0.mp4", "b/1.mp4")
    (root / link).symlink_to(root / "a/x/0.mp4" if link.endswith("mp4") else root / "a")
    with pytest.raises(DataListError, match=r"b/.*: the same file as a/x/0.mp4, of another class"):
        load(root)


@pytest.mark.parametrize(
    "spelling", [("Train", "Val", "Test"), ("training", "validation", "testing"), ("train_set", "DEV", "test-videos")]
)
def test_split_folders_are_spelled_in_many_ways(tmp_path: Path, spelling: tuple[str, ...]) -> None:
    root = make(tmp_path, *(f"{split}/{c}/0.mp4" for split in spelling for c in "ab"), "extra/0.mp4")
    for split, folder in zip(SPLITS, spelling, strict=True):
        assert names(root, split) == [f"{folder}/a/0.mp4", f"{folder}/b/0.mp4"]
    assert "left out: 1 folders beside the splits: extra" in warnings_of(root)
    make(root, "train/a/0.mp4", "Training_Set/a/0.mp4")
    with pytest.raises(DataListError, match="both mean train: keep one"):
        load(root)


def test_lists_under_other_names_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    root = make(tmp_path, "a/0.mp4", "b/0.mp4", "Train.csv", "validation.txt")
    assert "left out: 2 lists (the names that are read: train.csv, val.csv, test.csv): Train.csv" in warnings_of(root)


def test_class_folders_whose_letters_another_system_composed(tmp_path: Path) -> None:
    root = make(tmp_path, "train/caf\u00e9/0.mp4", "train/b/0.mp4", "val/cafe\u0301/0.mp4", "val/b/0.mp4")
    assert [r.label for r in load(root, "val").records] == [0, 1]


def test_a_class_name_that_is_not_utf8_is_escaped_and_its_videos_are_found(tmp_path: Path) -> None:
    root = make(tmp_path, "b/0.mp4")
    os.makedirs(os.fsencode(root) + b"/caf\xe9")
    open(os.fsencode(root) + b"/caf\xe9/0.mp4", "w").close()
    found = load(root, val_fraction=0, test_fraction=0)
    assert found.class_names == ["b", "caf\\xe9"] and all(os.path.exists(r.path) for r in found.records)


def test_several_picture_series_in_one_folder(tmp_path: Path) -> None:
    root = make(tmp_path, "b/0.mp4", *(f"a/clip/{s}_{i}.jpg" for s in ("img", "flow_x", "flow_y") for i in range(3)))
    found = load(root, val_fraction=0, test_fraction=0)
    assert [Path(f).name for f in found.records[0].frames] == ["img_0.jpg", "img_1.jpg", "img_2.jpg"]
    assert any("left out: 6 pictures of other series: flow_x_0.jpg" in line for line in found.warnings)
    make(root, *(f"a/clip{n}/{i}.{kind}" for n in range(9) for i in range(2) for kind in ("jpg", "png")))
    series = r"9 times: several picture series in one folder, such as\n.*: 2 picture series .*: \*.jpg \(2\), \*.png"
    with pytest.raises(DataListError, match=series):
        load(root)
