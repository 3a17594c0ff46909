"""The doctor on a folder, a manifest and a configuration: table, JSON, sheet, text to paste, exit status."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.curation.clips import copy_of, gestures
from tests.datasets.media import truncate, write_video
from timesformer.cli.doctor import main


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer.curation.small_videos.available_cpus", lambda: 1)


def manifest(folder: Path) -> Path:
    """Ten people in train and five in test, a copy and a person in both, a damaged and a frozen video."""
    clips = gestures(folder, 180, seed=41)
    rows = [(Path(clip.path).name, f"G{int(clip.label) + 1:02}", clip.subject, "train" if i < 120 else "test")  # type: ignore[arg-type]
            for i, clip in enumerate(clips)]  # fmt: skip
    copy = copy_of(clips[17], folder / "copy", 0)
    rows.append((Path(copy.path).name, "G06", "S12", "test"))
    rows[130] = (*rows[130][:2], "S3", "test")
    truncate(clips[30].path, 0.05)
    write_video(folder / "frozen.mp4", frames=[np.full((48, 64, 3), 120, np.uint8)] * 20)
    rows.append(("frozen.mp4", "G01", "S4", "train"))
    with (folder / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "subject", "split"), *rows])
    return folder


def test_a_manifest_with_planted_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, sheet = manifest(tmp_path / "data"), tmp_path / "found.json", tmp_path / "sheet.png"
    assert main([str(folder), "--json", str(out), "--sheet", str(sheet)]) == 1
    printed = capsys.readouterr()
    content = json.loads(out.read_text())
    assert content["videos"] == {"train": 121, "test": 61}
    by_check = {finding["check"]: finding for finding in content["findings"]}
    assert {check: finding["severity"] for check, finding in by_check.items()} == {
        "unreadable videos": "error",
        "near copies in two lists": "error",
        "person in two lists": "error",
        "constant videos": "warning",
    }
    copies = by_check["near copies in two lists"]
    assert {Path(video["path"]).name for video in copies["videos"]} == {"0017.avi", "copy.mp4"}
    assert [video["source"] for video in copies["remove"]] == ["videos.csv:19"] and copies["likeness"] > 0.85
    assert "S3" in by_check["person in two lists"]["what"]
    assert [video["source"] for video in by_check["person in two lists"]["remove"]] == ["videos.csv:132"]
    assert "sed -i.bak '19d;32d;132d;183d;' videos.csv" in printed.out
    assert "error: 3 errors, 1 warning. Mend the errors before you train" in printed.err
    assert sheet.read_bytes()[:4] == b"\x89PNG"


def test_a_folder_whose_people_are_guessed_and_warnings_alone_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = iter(gestures(tmp_path / "made", 24, seed=42))
    for split, people in (("train", (1, 2)), ("val", (2, 3))):
        for label in ("wave", "point"):
            for person in people:
                path = tmp_path / "data" / split / label / f"p{person:02}_{label}.avi"
                path.parent.mkdir(parents=True, exist_ok=True)
                Path(next(clips).path).rename(path)
    assert main([str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 videos, val: 4 videos" in printed and "0 errors, " in printed
    assert "warning: person or scene in two lists (guessed from names)" in printed
    assert "fewer than 10 videos for train: point (2), wave (2)" in printed


def test_a_configuration_is_examined_with_its_recipe_and_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    clips = gestures(folder, 24, seed=43)
    for split, part in (("train", clips[:12]), ("val", clips[12:])):
        names = ["left", "right", *"abcdefghij"]
        lines = [f"{Path(clip.path).name} {clip.label}" for clip in part]
        (folder / f"{split}.csv").write_text("\n".join(lines))
        (folder / "names.txt").write_text("\n".join(names))
    words = ["TRAIN.DATASET", "kinetics", "DATA.PATH_TO_DATA_DIR", str(folder), "MODEL.NUM_CLASSES", "12"]
    words += ["DATA.CLASS_NAMES_PATH", str(folder / "names.txt"), "TEST.ENABLE", "False", "DATA.RANDOM_FLIP", "True"]
    assert main(["--cfg", "Own/gestures_cpu", *words, "DATA.DIFFERENCE_FRAMES", "1", "DATA.SAMPLING_RATE", "3"]) == 0
    printed = capsys.readouterr().out
    assert "warning: mirrored classes" in printed and "DATA.FLIP_LABEL_MAP" in printed
    assert "warning: clips that miss most of the video" in printed
    assert "DATA:\n  FLIP_LABEL_MAP:\n  - - left\n    - right\n  SAMPLING_RATE: auto" in printed


def test_what_cannot_be_examined_is_an_error_that_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert f"{tmp_path}: no videos below it" in capsys.readouterr().err
    assert main([str(tmp_path), "DATA.NUM_FRAMES", "8"]) == 1
    assert "keys such as DATA.NUM_FRAMES need a configuration: timesformer doctor CFG" in capsys.readouterr().err
    assert main([]) == 1
    assert "timesformer doctor CFG|FOLDER|LIST" in capsys.readouterr().err
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().err
