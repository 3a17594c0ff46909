"""`timesformer prepare`: from five layouts to a configuration that trains and tests without a further key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.datasets.media import write_video
from timesformer.cli import prepare as command
from timesformer.cli import train
from timesformer.cli.prepare import main
from timesformer.datasets.build import load_lists
from timesformer.datasets.manifest import read_manifest
from timesformer.engine.setup import load_run_config

CLASSES = ("down", "up")
PEOPLE = range(1, 7)
NAMES = [(label, person, take) for label in CLASSES for person in PEOPLE for take in range(2)]


def frames(label: str, person: int, take: int) -> list[np.ndarray]:
    """A bright square that goes down or up: uint8 RGB (36, 48, 64, 3)."""
    pictures = np.full((36, 48, 64, 3), 20 * person, np.uint8)
    for i, picture in enumerate(pictures):
        top = i if label == "down" else 35 - i
        picture[top : top + 12, 10 * take + 5 : 10 * take + 25] = 250
    return [*pictures]


def write(path: Path, *name: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames=frames(*name), fps=18)  # type: ignore[arg-type]


def class_folders(root: Path) -> None:
    for label, person, take in NAMES:
        write(root / label / f"clip{person}{take}.mp4", label, person, take)


def person_folders(root: Path) -> None:
    for label, person, take in NAMES:
        write(root / f"subject{person:02}" / label / f"{take}.avi", label, person, take)


def split_folders(root: Path) -> None:
    for label, person, take in NAMES:
        split = "train" if person < 4 else "val" if person < 5 else "test"
        write(root / split / label / f"P{person}_{take}.mp4", label, person, take)


def lists(root: Path) -> None:
    for label, person, take in NAMES:
        name = f"s{person:02} {label}{take}.mp4"
        write(root / "media" / name, label, person, take)
        with (root / f"{'train' if person < 5 else 'test'}list.txt").open("a") as file:
            file.write(f"{name} {label}\n")


def frame_folders(root: Path) -> None:
    for label, person, take in NAMES:
        folder = root / label / f"p{person}_{take}"
        folder.mkdir(parents=True)
        for i, picture in enumerate(frames(label, person, take)):
            cv2.imwrite(str(folder / f"frame{i}.jpg"), picture)


LAYOUTS: dict[Callable[[Path], None], tuple[str, int, set[str]]] = {  # layout, subjects, splits that are new
    class_folders: ("CLASS/video", 0, {"train", "val", "test"}),
    person_folders: ("PERSON/CLASS/video", 6, {"train", "val", "test"}),
    split_folders: ("SPLIT/CLASS/video", 6, set()),
    lists: ("lists: trainlist.txt, testlist.txt", 6, {"train", "val"}),
    frame_folders: ("CLASS/video", 6, {"train", "val", "test"}),
}


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the timed steps, which cost seconds."""
    monkeypatch.setattr(command, "estimate", lambda path: "")


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_five_layouts(make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "clips")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*")}
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*")} == before
    layout, subjects, _ = LAYOUTS[make]
    table = capsys.readouterr().out
    assert f"layout      {layout}" in table and "classes     2 of 12 to 12 videos: down, up" in table
    assert f"subjects    {subjects}: " in table if subjects else "--subject REGEX finds them" in table
    assert "unreadable  0" in table and f"next: timesformer train --cfg {tmp_path}/out/config.yaml" in table
    assert (tmp_path / "out/classes.txt").read_text() == "down\nup\n"
    found = load_lists(load_run_config(str(tmp_path / "out/config.yaml")).cfg)
    assert sum(len(videos.records) for videos in found.values()) == len(NAMES)
    assert all({record.label for record in videos.records} == {0, 1} for videos in found.values())
    people = [{record.subject for record in videos.records} - {""} for videos in found.values()]
    assert sum(map(len, people)) == subjects


@pytest.mark.usefixtures("untimed")
def test_splits_that_are_there_are_kept_and_val_is_made_from_train(tmp_path: Path) -> None:
    lists(tmp_path / "clips")
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    rows = read_manifest(str(tmp_path / "out/videos.csv"))
    assert {row.subject for row in rows if row.split == "test"} == {"s05", "s06"}
    assert len({row.subject for row in rows if row.split == "val"}) in (1, 2)


@pytest.mark.usefixtures("untimed")
def test_again_keeps_every_file_that_people_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person_folders(tmp_path / "clips")
    arguments = [str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--short-side", "32"]
    assert main(arguments) == 0
    manifest, config = tmp_path / "out/videos.csv", tmp_path / "out/config.yaml"
    manifest.write_text(edited := manifest.read_text().replace(",up,", ",raise,"))
    config.write_text(changed := config.read_text().replace("DATASET: manifest", "DATASET: manifest  # mine"))
    capsys.readouterr()
    assert main(arguments) == 0
    assert (manifest.read_text(), config.read_text()) == (edited, changed)
    assert (tmp_path / "out/classes.txt").read_text() == "down\nraise\n"
    output = capsys.readouterr().out
    assert "config.yaml is kept as it is" in output and "videos      24, 0 new" in output
    assert {record.path for record in load_lists(load_run_config(str(config)).cfg)["train"].records} <= {
        str(path) for path in (tmp_path / "out/videos").rglob("*.mp4")
    }


@pytest.mark.usefixtures("untimed")
def test_what_deserves_a_look_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_folders(tmp_path / "clips")
    write(tmp_path / "clips/test/up/P1_7.mp4", "up", 1, 7)
    write(tmp_path / "clips/train/wait/P1_8.mp4", "up", 1, 8)
    (tmp_path / "clips/train/up/P2_9.mp4").write_bytes(b"no video")
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "warning: 1 subject in several splits, such as P1 (train, test)" in output
    assert "warning: 1 class not in every split: wait (no test, val)" in output
    assert "unreadable  1\n" in output and "P2_9.mp4: " in output


@pytest.mark.usefixtures("untimed")
def test_too_few_videos_for_a_val_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("up/1.mp4", "up/2.mp4", "down/1.mp4"):
        write(tmp_path / "clips" / name, "up", 1, 0)
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    assert (
        "warning: no video is in val, and a training needs that list: a class needs at least 3"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fractions", "0.5", "0.5"], "both are shares, val above 0, that leave a rest for train"),
        (["--short-side", "2"], "--short-side 2: allowed are 16 to 4320 pixels"),
        (["--subject", "nobody"], "--subject 'nobody' finds nothing in 24 of 24 paths"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path / "clips")
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_time_is_measured_and_a_broken_configuration_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "clips")
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "an epoch, " in output and " for 100 epochs (the fastest of 5 steps of 4 clips, reading included" in output
    assert not (tmp_path / "out/run").exists()
    config = tmp_path / "out/config.yaml"
    config.write_text(config.read_text() + "MODEL:\n  NUM_CLASSES: 3\n")
    assert "warning: this configuration does not train yet: " in command.estimate(str(config))
    assert "MODEL.NUM_CLASSES 2" in command.estimate(str(config))


@pytest.mark.slow
def test_two_commands_and_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person_folders(tmp_path / "clips")
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    config = tmp_path / "out/config.yaml"
    config.write_text(config.read_text() + "SOLVER: {MAX_EPOCH: 8, WARMUP_EPOCHS: 1.0}\n")  # to be done in seconds
    assert train.main(["--cfg", str(config)]) == 0
    results = json.loads((tmp_path / "out/run/results.json").read_text())
    assert results["top1"]["value"] > 60 if isinstance(results["top1"], dict) else results["top1"] > 60
