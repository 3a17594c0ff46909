"""MuWiGes lists as the gesture work writes them: .avi files and frame folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.muwiges import MuWiGes
from timesformer.utils.errors import DataListError


@pytest.fixture
def muwiges(tmp_path: Path) -> Path:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "train.csv").write_text("G1/S07_01.avi,0\nG2/user_7,G2\nG12/wrist9.avi,11\n")
    (tmp_path / "G2" / "user_7").mkdir(parents=True)
    for number in (1, 2, 10):
        (tmp_path / "G2" / "user_7" / f"{number}.jpg").touch()
    return tmp_path


def test_avi_files_frame_folders_and_names(muwiges: Path) -> None:
    found = MuWiGes(data_dir=str(muwiges), split="train", num_classes=12, separator=",").load()
    assert [r.label for r in found.records] == [0, 1, 11]
    frames = found.records[1]
    assert [Path(f).name for f in frames.frames] == ["1.jpg", "2.jpg", "10.jpg"] and frames.fps == 15.0
    assert len(found.class_names) == 12 and found.class_names[0].startswith("G1 ")


def test_another_number_of_classes_is_reported_with_the_override(muwiges: Path) -> None:
    with pytest.raises(DataListError, match=r"Add: MODEL\.NUM_CLASSES 12"):
        MuWiGes(data_dir=str(muwiges), split="train", num_classes=400, separator=",").load()


def test_no_test_list(muwiges: Path) -> None:
    with pytest.raises(DataListError, match=r"metadata/test.csv .*lists there: metadata/train.csv.*TEST.SPLIT val"):
        MuWiGes(data_dir=str(muwiges), split="test", num_classes=12).load()
