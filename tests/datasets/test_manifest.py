"""The manifest: written and read the same, kept as people edited it, every bad cell named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg, set_value
from timesformer.datasets.build import load_lists
from timesformer.datasets.manifest import Manifest, ManifestRow, append_rows, read_manifest, write_manifest
from timesformer.datasets.records import VideoList
from timesformer.utils.errors import DataListError

TEXT = "path,label,split\na.mp4,wave,train\nb.mp4,circle,train\nc.mp4,wave,test\nd.mp4,point,\n"


def load(folder: Path, text: str = TEXT, split: str = "train", **options: object) -> VideoList:
    (folder / "videos.csv").write_text(text, encoding="utf-8")
    return Manifest(**{"data_dir": str(folder), "split": split, "num_classes": 2, **options}).load()  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "videos.csv")
    rows = [
        ManifestRow(path="#1/a, b.mp4", label='say "no"', subject="p1", scene="hall", split="train", line=2,
                    duration=1 / 3, fps=29.97, frames=1234567, size="160x120", hash="00ff", start=0.1, end=12.0),
        ManifestRow(path="é \udcff.mp4", label="2", line=3),
    ]  # fmt: skip
    write_manifest(path, rows)
    assert read_manifest(path) == [
        ManifestRow(**{**vars(rows[0]), "path": "./#1/a, b.mp4"}),  # else it would be a comment
        rows[1],
    ]
    with pytest.raises(DataListError, match="line break"):
        write_manifest(path, [ManifestRow(path="a\nb.mp4", label="x")])
    assert len(read_manifest(path)) == 2  # not half written


def test_a_split_with_names_people_scenes_parts_and_frame_folders(tmp_path: Path) -> None:
    (tmp_path / "clips/frames").mkdir(parents=True)
    (tmp_path / "clips/frames/2.jpg").touch()
    text = (
        "split;note;subject;label;path;fps;scene;start;end\n"
        "Training;x;p1;wave;a.mp4;;hall;1,5;2\ntrain;;p2;circle;frames;12.5;;;\nval;;;wave;/b.mp4;;;;\n"
    )
    found = load(tmp_path, text, prefix=str(tmp_path / "clips"))
    first, second = found.records
    assert found.class_names == ["circle", "wave"]
    assert (first.path, first.label, first.subject, first.scene) == (str(tmp_path / "clips/a.mp4"), 1, "p1", "hall")
    assert (first.start_sec, first.end_sec, first.source) == (1.5, 2.0, "videos.csv:2")
    assert (second.frames, second.fps, second.subject) == ((str(tmp_path / "clips/frames/2.jpg"),), 12.5, "p2")
    assert load(tmp_path, text, split="val").records[0].path == "/b.mp4"


def test_paths_belong_to_the_folder_of_the_file_which_may_itself_be_named(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "videos.csv").rename(tmp_path / "fold1.csv")
    found = Manifest(data_dir=str(tmp_path / "fold1.csv"), split="test", num_classes=2).load()
    assert [(r.path, r.label) for r in found.records] == [(str(tmp_path / "c.mp4"), 1)]
    with pytest.raises(DataListError, match=r"lists there: fold1.csv. .*timesformer prepare"):
        Manifest(data_dir=str(tmp_path), split="test", num_classes=2).load()


def test_class_names_of_a_file_and_several_labels(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("wave\ncircle\n")
    names = {"class_names_path": str(tmp_path / "classes.txt")}
    assert [r.label for r in load(tmp_path, **names).records] == [0, 1]
    several = load(tmp_path, TEXT.replace("a.mp4,wave", "a.mp4,wave;circle"), multi_label=True)
    assert [r.label for r in several.records] == [(0, 1), (0,)]
    with pytest.raises(DataListError, match=r"videos.csv:3: label 'circel' is not .*b.mp4"):
        load(tmp_path, TEXT.replace("circle", "circel"), **names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,wave,train\n", r"videos.csv:1: the header is 'a.mp4,wave,train', but should name the columns"),
        ("path,label\na.mp4,wave\n", r"videos.csv:1: no column for the split among path, label"),
        (TEXT.replace(",test", ",tets"), r"videos.csv:4: split 'tets' is none of train, val, test, or empty"),
        (TEXT.replace("b.mp4,circle,", "b.mp4,,"), r"videos.csv:3: no label, but a split"),
        ("path,label,split,fps\n,wave,train,1\na.mp4,wave,train,x\n", r"(?s)2 problems.*:2: no path.*:3: fps 'x' is"),
        ("path,label,split,start,end\na.mp4,w,train,3,2\n", r"videos.csv:2: from 3.0 to 2.0 seconds is no part"),
        (TEXT + "a.mp4,circle,train\n", r"videos.csv:6: label 0, but videos.csv:2 gives the same video label 1"),
        (TEXT + "e.mp4,point,train\n", r"has 3 classes, but MODEL.NUM_CLASSES is 2. Add: MODEL.NUM_CLASSES 3"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataListError, match=message):
        load(tmp_path, text)


def test_a_split_without_videos_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"no videos for val \(videos: train 2, val 0, test 1\). Write val into"):
        load(tmp_path, split="val")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_appended_rows_leave_what_people_wrote(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "videos.csv"
    text = "# mine\nnote;path;label;split;fps\n;a.mp4;wäve;val;30"
    path.write_text(text, encoding=encoding)
    append_rows(str(path), [ManifestRow(path="b;.mp4", label="circle", split="test", fps=25.0, subject="p1")])
    assert path.read_text(encoding=encoding) == text + '\n;"b;.mp4";circle;test;25\n'
    assert [(r.path, r.label, r.split, r.fps, r.line) for r in read_manifest(str(path))] == [
        ("a.mp4", "wäve", "val", 30.0, 3),
        ("b;.mp4", "circle", "test", 25.0, 4),
    ]


def test_a_run_finds_it_by_name(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "videos.csv").write_text(TEXT.replace("b.mp4,circle,train", "b.mp4,circle,val"))
    cfg = get_cfg()
    values = {"TRAIN.DATASET": "manifest", "TEST.DATASET": "manifest", "MODEL.NUM_CLASSES": 2}
    for name, value in {**values, "DATA.PATH_TO_DATA_DIR": str(tmp_path)}.items():
        set_value(cfg, name, value)
    assert {split: len(videos.records) for split, videos in load_lists(cfg).items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }
