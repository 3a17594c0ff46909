"""Protocols: folds of a real list, tables of what the runs predicted, resuming, refusals."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli import compare, protocol, submit
from timesformer.datasets.build import load_lists
from timesformer.datasets.manifest import ManifestRow, write_manifest
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.engine.setup import load_run_config
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import accuracy_interval
from timesformer.evaluation.report import write_predictions
from timesformer.studies.protocol import FoldRun, Protocol
from timesformer.studies.results import problems_of

ROOT = Path(__file__).parents[2]
GESTURES = str(ROOT / "configs/Gestures/LightTimeSformer_demo.yaml")
CLASSES = ("wave", "circle", "point")
PEOPLE, SCENES = [f"p{i}" for i in range(6)], ["hall", "room", "yard"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A manifest of 36 files: six people make three gestures, in two of three scenes each."""
    rows = []
    for person in range(6):
        for take, name in enumerate(CLASSES * 2):
            path = tmp_path / "clips" / f"{PEOPLE[person]}_{name}_{take}.mp4"
            path.parent.mkdir(exist_ok=True)
            if (person, take) == (0, 0):  # a folder of frames
                path = path.with_suffix("")
                path.mkdir()
                (path / "1.jpg").touch()
            else:
                path.touch()
            scene = SCENES[(person + take // 3) % 3]
            rows.append(ManifestRow(path=path.name, label=name, subject=PEOPLE[person], scene=scene, split="train"))
    rows[3:5] = [
        ManifestRow(**{**vars(row), "split": split}) for row, split in zip(rows[3:5], ("val", "test"), strict=True)
    ]
    write_manifest(str(tmp_path / "clips/videos.csv"), rows)
    return tmp_path / "clips"


@pytest.fixture
def call(clips: Path, tmp_path: Path) -> Callable[..., int]:
    """The command, on the clips, with its runs in OUT."""

    def run(kind: str, *words: object) -> int:
        settings = ["TRAIN.DATASET", "manifest", "TEST.DATASET", "manifest", "DATA.PATH_TO_DATA_DIR", clips]
        settings += ["MODEL.NUM_CLASSES", 3, "TIMESFORMER.EMBED_DIM", 24, "TIMESFORMER.DEPTH", 1, "NUM_GPUS", 0]
        settings += ["DATA.FLIP_LABEL_MAP", "[]", "OUTPUT_DIR", tmp_path / "out"]
        return protocol.main(["--cfg", GESTURES, "--kind", kind, *map(str, [*words, *settings])])

    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were "trained": each leaves what a test leaves; p0 and p1 are predicted wrong."""
    names: list[str] = []

    def train(planned: Protocol, run: FoldRun) -> None:
        names.append(run.name)
        records = run.splits["test"]
        right = [record.subject not in ("p0", "p1") for record in records]
        labels = [int(record.label) for record in records]  # type: ignore[arg-type]
        scores = np.eye(3)[[label if good else (label + 1) % 3 for label, good in zip(labels, right, strict=True)]]
        run.folder.mkdir(exist_ok=True)
        rows = Predictions(np.arange(len(records)), [*labels], scores, [], np.ones(len(records)), [])
        write_predictions(run.folder / "predictions.csv", VideoList(records), rows)
        share = 100 * float(np.mean(right))
        results = {"list": fingerprint(records), "videos": len(records), "scored": len(records), "top1": share}
        results |= {"top1_low": share - 1, "top1_high": share + 1, "mean_class": share}
        (run.folder / "results.json").write_text(json.dumps(results))

    monkeypatch.setattr(protocol, "train", train)
    return names


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "videos.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize(
    ("kind", "options", "by", "number"),
    [("loso", [], "subject", 6), ("cross_scene", [], "scene", 3), ("group_kfold", ["--folds", 3], "subject", 3),
     ("group_kfold", ["--folds", 3, "--by", "scene"], "scene", 3), ("kfold", ["--folds", 4], "", 4)],
)  # fmt: skip
def test_the_lists_of_the_folds(
    call: Callable[..., int], tmp_path: Path, trained: list[str], kind: str, options: list[Any], by: str, number: int
) -> None:
    """What each run reads is what was planned; every clip is tested once; no group is in two splits."""
    assert call(kind, *options) == 0
    folders = sorted((tmp_path / "out").glob("fold_*"))
    assert len(folders) == len(trained) == number
    tested = []
    for folder in folders:
        rows = read(folder)
        assert {row["split"] for row in rows} == {"train", "val", "test"} and len(rows) == 36
        tested += [row["path"] for row in rows if row["split"] == "test"]
        if by:
            groups = {split: {row[by] for row in rows if row["split"] == split} for split in ("train", "val", "test")}
            assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
        words = ["TRAIN.DATASET", "manifest", "TEST.DATASET", "manifest", "DATA.PATH_TO_DATA_DIR", str(folder)]
        words += ["DATA.CLASS_NAMES_PATH", str(tmp_path / "out/class_names.txt")]
        lists = load_lists(load_run_config(str(tmp_path / "out/config.yaml"), words).cfg)
        assert fingerprint(lists["test"].records) == json.loads((folder / "results.json").read_text())["list"]
        assert lists["train"].class_names == sorted(CLASSES)
        (frames,) = [record for videos in lists.values() for record in videos.records if record.frames]
        assert frames.path.endswith("p0_wave_0") and len(frames.frames) == 1
    assert sorted(tested) == sorted(str(path) for path in (tmp_path / "clips").glob("p*"))


def test_the_tables(
    call: Callable[..., int], tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("loso") == 0
    out, folder = capsys.readouterr().out, tmp_path / "out"
    assert "subject p2 (3 of 6): top1 100.0% of 6 test clips" in out
    results = json.loads((folder / "results.json").read_text())
    people = [f"p{i}" for i in range(6) for _ in range(6)]
    low, high = accuracy_interval(np.arange(36) >= 12, people)
    assert (results["top1"], results["top1_low"], results["top1_high"]) == pytest.approx((200 / 3, low, high))
    assert results["std"] == pytest.approx(np.std([0, 0, 100, 100, 100, 100], ddof=1))
    assert results["per_class"] == pytest.approx(dict.fromkeys(sorted(CLASSES), 200 / 3))
    assert results["interval_by"] == "subject" and results["tested_checkpoint"] == "last"
    text = (folder / "results.md").read_text(encoding="utf-8")
    assert text in out and f"66.7 [{low:.1f}, {high:.1f}]" in text and "66.7 ± 51.6" in text
    assert "The last checkpoint of each run is tested" in text and "No subject is in two of" in text
    assert "subject p0 & 24/6/6 & 1 & 0.0" in (folder / "results.tex").read_text(encoding="utf-8")
    for picture in ("results.png", "per_class.png", "confusion.png"):
        assert (folder / picture).stat().st_size > 1000
    assert problems_of(folder) == []
    assert compare.main([str(folder), str(folder), "--out", str(tmp_path / "c.png")]) == 0
    assert "36 clips" in (compared := capsys.readouterr().out) and "no difference is shown" in compared


def test_an_edited_table_is_found(call: Callable[..., int], tmp_path: Path, trained: list[str]) -> None:
    assert call("loso") == 0
    file = tmp_path / "out/results.json"
    text = file.read_text()
    file.write_text(json.dumps(json.loads(text) | {"top1": 70.0, "std": 3.0}))
    lines = problems_of(tmp_path / "out")
    assert [line.split(": ")[0].strip() for line in lines] == ["top1", "std"] and "70.0 in results.json" in lines[0]
    file.write_text(text)
    rows = (tmp_path / "out/predictions.csv").read_text()
    (tmp_path / "out/predictions.csv").write_text(rows.replace(",0,1,p0,0,1,0", ",1,1,p0,0,1,0", 1))
    assert problems_of(tmp_path / "out") == ["  predictions.csv is not that of the runs"]


def test_only_what_is_missing_is_trained(
    call: Callable[..., int], tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("loso") == 0
    (tmp_path / "out/fold_3/results.json").write_text("{")  # interrupted while it was written
    (tmp_path / "out/fold_5/results.json").write_text('{"list": "another"}')
    trained.clear()
    capsys.readouterr()
    assert call("loso") == 0
    assert trained == ["subject p2", "subject p4"]
    assert "subject p0: done, top1 0.0% of 6 test clips" in capsys.readouterr().out


def test_another_protocol_in_the_folder_is_refused(
    call: Callable[..., int], trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("group_kfold", "--folds", 3) == 0
    trained.clear()
    assert call("group_kfold", "--folds", 3, "SOLVER.BASE_LR", 0.5, "TEST.CHECKPOINT", "best", "LOG_PERIOD", 3) == 1
    error = capsys.readouterr().err
    assert "SOLVER.BASE_LR: 0.001 there, 0.5 here\n  TEST.CHECKPOINT: last there, best here\nSet these" in error
    assert call("loso") == 1
    assert "kind: group_kfold there, loso here" in capsys.readouterr().err
    assert call("group_kfold", "--folds", 3, "LOG_PERIOD", 3) == 0 and trained == []


def test_the_folder_of_a_run_is_refused(
    call: Callable[..., int], tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.yaml").write_text("a run")
    assert call("loso") == 1 and trained == []
    assert "out holds a run, which the protocol would write over" in capsys.readouterr().err
    assert (tmp_path / "out/config.yaml").read_text() == "a run"


def test_seeds_take_the_lists_as_they_are(call: Callable[..., int], tmp_path: Path, trained: list[str]) -> None:
    assert call("seeds", "--seeds", 4, 7) == 0
    assert trained == ["seed 4", "seed 7"] and not (tmp_path / "out/seed_4/videos.csv").exists()
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["scored"] == 2 and [run["clips"] for run in results["protocol"]["runs"]] == [{"test": 1}] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kfold", "--by", "scene"], "--by is of --kind group_kfold, not of kfold"),
        (["loso", "--folds", 3], "--folds is of --kind kfold and group_kfold, not of loso"),
        (["kfold", "--folds", 1], "--folds 1: at least 2"),
        (["seeds", "--seeds", 1, 1], "--seeds 1 1: give whole numbers, each once"),
        (["group_kfold", "--folds", 7], "the clips are of 6 different subjects: 7 folds need at least 7"),
        (["loso", "TRAIN.ENABLE", "False"], "TRAIN.ENABLE False: each run of a protocol trains"),
        (["loso", "TEST.CHECKPOINT_FILE_PATH", "x.pyth"], "a protocol tests its own weights"),
    ],
)
def test_what_cannot_be(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[Any], message: str
) -> None:
    assert call(*words) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_clips_without_a_person_are_named(
    call: Callable[..., int], clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (clips / "videos.csv").read_text()
    (clips / "videos.csv").write_text(text.replace(",p3,", ",,"))
    assert call("loso") == 1
    error = capsys.readouterr().err
    assert "6 of 36 clips have no subject, which --kind loso needs" in error and "p3_wave_0.mp4 (videos.csv:" in error


def test_a_dry_run_shows_the_folds_and_writes_nothing(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("loso", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "leave one subject out, 6 runs: 36 clips" in out and not (tmp_path / "out").exists()
    assert [line.split()[:5] for line in out.splitlines() if line.startswith("subject p1")] == [
        ["subject", "p1", "24", "6", "6"]
    ]
    assert call("kfold", "--folds", 3, "--dry-run") == 0
    assert "WARNING: clips of one person are in training and test" in capsys.readouterr().out


def test_what_is_missing_is_submitted_as_an_array(
    call: Callable[..., int], tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("loso") == 0
    for number in (2, 4):
        (tmp_path / f"out/fold_{number}/results.json").unlink()
    submitted: list[Any] = []
    monkeypatch.setattr(submit, "submit_all", lambda *arguments: submitted.append(arguments))
    trained.clear()
    assert call("loso", "--on", "slurm", "--job", "--num_gpus 0 --partition 'big one'") == 0
    ((options, words),) = submitted
    assert (options.partition, options.num_gpus, options.cluster) == ("big one", 0, "slurm") and not trained
    assert [each[each.index("OUTPUT_DIR") + 1] for each in words] == [str(tmp_path / f"out/fold_{k}") for k in (2, 4)]
    for each in words:
        load_run_config(options.cfg, each)  # what each job reads


def test_a_run_that_fails_shows_the_end_of_its_log(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clips are empty files."""
    assert call("loso", "DATA_LOADER.NUM_WORKERS", 0) == 1
    error = capsys.readouterr().err
    assert "subject p0 ended with status 1; the end of" in error and "The same command resumes it" in error
    assert "the file is empty" in error and "Mend or remove them" in error


@pytest.mark.slow
def test_an_interrupted_protocol_ends_as_one_that_was_not(tmp_path: Path, tiny: list[str]) -> None:  # noqa: F811
    def start(out: Path) -> subprocess.Popen[str]:
        words = [*tiny, "SOLVER.MAX_EPOCH", "4", "TENSORBOARD.ENABLE", "False"]
        line = [sys.executable, "-m", "timesformer", "protocol", "--cfg", GESTURES, "--kind", "loso", "--out", str(out)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*line, *words], cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1)

    whole, stopped = start(tmp_path / "whole"), tmp_path / "stopped"
    assert whole.wait(600) == 0, whole.communicate()
    process = start(stopped)
    while not (stopped / "fold_2/metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143 and "is saved; the same command resumes it" in error
    assert not (stopped / "results.json").exists()
    again = start(stopped)
    out, error = again.communicate(timeout=600)
    assert again.returncode == 0, error
    assert "subject S000: done" in out and "resuming from" in (stopped / "fold_2/output.txt").read_text()
    for name in ("predictions.csv", "results.tex"):
        assert (stopped / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
