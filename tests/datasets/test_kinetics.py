"""Kinetics lists: found in the folder or its metadata, and what is said when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.datasets.kinetics import Kinetics
from timesformer.utils.errors import DataListError
from timesformer.utils.registry import DATASETS


@pytest.mark.parametrize("folder", [".", "metadata"])
def test_lists_are_read_through_the_config(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "train.csv").write_text("a b.mp4,0\nc.mp4,1\n")
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", str(tmp_path), "DATA.PATH_LABEL_SEPARATOR", ","])
    cfg.merge_from_list(["DATA.PATH_PREFIX", "/clips", "MODEL.NUM_CLASSES", 3])
    found = DATASETS.get("kinetics").from_config(cfg, "train").load()
    assert [(r.path, r.label, r.source) for r in found.records] == [
        ("/clips/a b.mp4", 0, "train.csv:1"),
        ("/clips/c.mp4", 1, "train.csv:2"),
    ]


def test_paths_relative_to_the_data_folder_of_lists_in_metadata(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "val.csv").write_text("videos/a.mp4 0\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    found = Kinetics(data_dir=str(tmp_path), split="val", num_classes=1).load()
    assert found.records[0].path == str(tmp_path / "videos" / "a.mp4")


def test_no_test_list_names_the_lists_there_are_and_what_to_do(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text("a.mp4 0\n")
    with pytest.raises(DataListError) as caught:
        Kinetics(data_dir=str(tmp_path), split="test", num_classes=1).load()
    message = str(caught.value)
    assert str(tmp_path / "test.csv") in message and "train.csv, val.csv" in message
    assert "TEST.SPLIT val" in message


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_no_data_folder(folder: str) -> None:
    with pytest.raises(DataListError, match=r"DATA.PATH_TO_DATA_DIR .* train.csv"):
        Kinetics(data_dir=folder, split="train", num_classes=1).load()


def test_class_names_from_a_file_may_stand_for_labels(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("walk\nrun\n")
    (tmp_path / "train.csv").write_text("a.mp4 run\nb.mp4 0\n")
    names = str(tmp_path / "names.txt")
    found = Kinetics(data_dir=str(tmp_path), split="train", num_classes=2, class_names_path=names).load()
    assert found.class_names == ["walk", "run"]
    assert [r.label for r in found.records] == [1, 0]
