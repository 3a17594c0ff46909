"""Whole runs of a tiny model on generated gestures: outputs, resume, faults."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from timesformer.datasets import caching
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.datasets.video_dataset import Batch, collate
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.checkpoint import Position
from timesformer.engine.train import show_confusions, show_input
from timesformer.utils.errors import ConfigError
from timesformer.video.clip_spec import ClipSpec

ROOT = Path(__file__).parents[2]
Run = Callable[..., int]


def history(folder: Path, kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = checkpoints.newest_checkpoint(folder)
    assert newest is not None
    return checkpoints.read_checkpoint(newest)["model_state"]


def test_a_run_leaves_everything_that_explains_it(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "TEST.REPORT", True) == 0
    printed = capsys.readouterr().out
    assert f"report            {tmp_path}/report.html" in printed
    assert "parameters" in printed and "videos scored     12 of 12" in printed and "top1" in printed
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        *("config.yaml", "versions.json", "dataset.json", "metrics.jsonl", "results.json", "predictions.csv"),
        *("input_clips.png", "curves.png"),
        *("confusion.png", "per_class.png", "log.txt", "tensorboard", "report.html"),
    }
    page = (tmp_path / "report.html").read_text()
    assert all(text in page for text in ("G1 up-down", "data:video/", 'id="curves"', 'id="input"'))
    assert "missing_videos.csv" not in names
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["SOLVER"]["MAX_EPOCH"] == 2
    rows = history(tmp_path, "train")
    assert len(rows) == 4 and rows[-1]["epoch"] == 2.0  # 24 clips in steps of 16 and 8
    assert {"loss", "top1", "lr", "clips_per_sec", "data_wait", "distinct_frames"} <= set(rows[0])
    assert [row["epoch"] for row in history(tmp_path, "val")] == [1.0, 2.0]


def test_the_first_batch_is_drawn_and_all_are_passed_on(tmp_path: Path) -> None:
    """Nothing is read for the picture: a video that hangs is the loader's business."""
    clips = torch.zeros(2, 3, 4, 16, 16, dtype=torch.uint8)
    batches = [Batch(clips, [0, (1, 2)], [1, 0], [0, 1], [1, 1], [4, 4], [], []), collate([])]
    shown: list[str] = []
    events = SimpleNamespace(clips=lambda name, *_, **__: shown.append(name))
    run = SimpleNamespace(output_dir=tmp_path, events=events, spec=ClipSpec())
    videos = VideoList([VideoRecord(f"{name}.mp4", 0, "train.csv:1") for name in "ab"], ["wave", "clap"])
    assert all(a is b for a, b in zip(show_input(run, iter(batches), videos), batches, strict=True))
    assert shown == ["train/input"] and (tmp_path / "input_clips.png").stat().st_size > 0
    (tmp_path / "input_clips.png").unlink()
    assert len(list(show_input(run, iter([collate([])]), videos))) == 1 and not list(tmp_path.iterdir())


def test_confusion_is_drawn_for_the_best_and_the_last_validation() -> None:
    steps: list[int] = []
    events = SimpleNamespace(figure=lambda name, draw, step: steps.append(step) if draw() else None)
    shared: dict[str, Any] = {"run": SimpleNamespace(events=events), "val_videos": VideoList([], ["wave", "clap"])}
    counts = np.eye(2)
    for best, last in ((None, None), ((3, counts), (9, counts)), ((9, counts), (9, counts))):
        show_confusions(SimpleNamespace(**shared, best_confusion=best, last_confusion=last))  # type: ignore[arg-type]
    assert steps == [3, 9, 9]


def test_defect_15_predictions_csv_holds_paths_labels_predictions_and_scores(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 0
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == list(range(12))
    scores = np.array([[float(row[f"score_{k}"]) for k in range(12)] for row in rows])
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-4)
    assert scores.argmax(axis=1).tolist() == [int(row["prediction"]) for row in rows]
    assert all(row["path"].endswith(".avi") for row in rows)
    with (tmp_path / "worst_clips.csv").open() as file:
        worst = list(csv.DictReader(file))
    assert {row["path"] for row in worst} == {row["path"] for row in rows if row["label"] != row["prediction"]}
    assert f"worst clip        {worst[0]['path']}: {worst[0]['label']} confused with" in capsys.readouterr().out
    accuracy = 100 * np.mean([row["label"] == row["prediction"] for row in rows])
    assert json.loads((tmp_path / "results.json").read_text())["top1"] == pytest.approx(accuracy)


def test_defect_07_validation_and_test_do_not_depend_on_chance(tmp_path: Path, run: Run) -> None:
    """Neither on the seed nor on the batch size."""

    def predictions() -> tuple[list[str], np.ndarray]:
        rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()[1:]]
        return [" ".join(row[:3]) for row in rows], np.array([row[-12:] for row in rows], dtype=float)

    assert run(tmp_path) == 0
    words, scores = predictions()
    assert run(tmp_path, "TRAIN.ENABLE", False, "RNG_SEED", 5, "TEST.BATCH_SIZE", 1) == 0
    assert predictions()[0] == words
    np.testing.assert_allclose(predictions()[1], scores, atol=1e-5)


def test_the_same_seed_gives_the_same_run_and_workers_do_not_matter(tmp_path: Path, run: Run) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        assert run(tmp_path / name, "DATA_LOADER.NUM_WORKERS", workers, "TEST.ENABLE", False) == 0
    a, b = history(tmp_path / "a", "train"), history(tmp_path / "b", "train")
    assert [row["loss"] for row in a] == [row["loss"] for row in b]
    torch.testing.assert_close(weights(tmp_path / "a"), weights(tmp_path / "b"), rtol=0, atol=0)


def test_a_run_that_stopped_after_an_epoch_goes_on_to_the_same_weights(tmp_path: Path, run: Run) -> None:
    """The schedule depends on MAX_EPOCH, so the run is stopped by removing its last checkpoint."""
    assert run(tmp_path / "whole", "TEST.ENABLE", False) == 0
    expected, rows = weights(tmp_path / "whole"), history(tmp_path / "whole", "train")
    checkpoints.checkpoint_path(tmp_path / "whole", Position(2)).unlink()
    assert run(tmp_path / "whole", "TEST.ENABLE", False, "TRAIN.AUTO_RESUME", True) == 0
    torch.testing.assert_close(weights(tmp_path / "whole"), expected, rtol=0, atol=0)
    assert [r["loss"] for r in history(tmp_path / "whole", "train")] == [r["loss"] for r in rows]


def test_an_earlier_run_is_neither_overwritten_nor_resumed_by_accident(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "TEST.ENABLE", False) == 0
    before = (tmp_path / "metrics.jsonl").read_text()
    assert run(tmp_path, "TEST.ENABLE", False) == 1
    assert "TRAIN.AUTO_RESUME True" in capsys.readouterr().err
    assert run(tmp_path, "TRAIN.AUTO_RESUME", True, "SOLVER.BASE_LR", 0.5) == 1
    assert "SOLVER.BASE_LR: 0.001 there, 0.5 here" in capsys.readouterr().err
    assert run(tmp_path, "TEST.ENABLE", False, "TRAIN.AUTO_RESUME", True) == 0
    assert "already trained for 2 epochs of SOLVER.MAX_EPOCH 2" in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_fine_tuning_starts_from_weights_with_a_new_head(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "first", "TEST.ENABLE", False) == 0
    path = checkpoints.newest_checkpoint(tmp_path / "first")
    as_lists = ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics"]  # which may have more classes than clips
    start = [*as_lists, "TRAIN.CHECKPOINT_FILE_PATH", path, "TRAIN.FINETUNE", True]
    assert run(tmp_path / "second", *start, "MODEL.NUM_CLASSES", 15, "TEST.ENABLE", False) == 0
    assert "12 classes in the weights, 15 in the model" in capsys.readouterr().out
    assert weights(tmp_path / "second")["model.head.weight"].shape[0] == 15
    only_test = [*as_lists, "TRAIN.ENABLE", False, "TEST.CHECKPOINT_FILE_PATH", path]
    assert run(tmp_path / "third", *only_test, "MODEL.NUM_CLASSES", 15) == 1
    assert "has 12 classes and the model 15; nothing was loaded" in capsys.readouterr().err


def test_training_goes_on_without_a_damaged_clip_and_test_lists_it(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    settings = ["DATA.PATH_TO_DATA_DIR", data, "DATA.MAX_FAILED_FRACTION", 0.3]
    assert run(tmp_path / "a", *settings, "SOLVER.MAX_EPOCH", 1, "SOLVER.WARMUP_EPOCHS", 0) == 0
    for split in ("train", "test"):
        damaged = sorted((data / split).glob("*.avi"))[3]
        damaged.write_bytes(b"")
    capsys.readouterr()
    as_lists = ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics"]
    assert run(tmp_path / "b", *settings, *as_lists, "SOLVER.MAX_EPOCH", 1, "SOLVER.WARMUP_EPOCHS", 0) == 0
    printed = capsys.readouterr().out
    assert "clip left out" in printed and "videos scored     11 of 12" in printed and "not scored        1" in printed
    assert len((tmp_path / "b/failed_clips.csv").read_text().splitlines()) == 2
    assert damaged.name in (tmp_path / "b/missing_videos.csv").read_text()
    assert run(tmp_path / "c", *settings, *as_lists, "DATA.MAX_FAILED_FRACTION", 0.01) == 1
    assert "more than DATA.MAX_FAILED_FRACTION 0.01" in capsys.readouterr().err


def test_check_passes_on_good_data_and_names_a_damaged_file(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert run(tmp_path / "a", "DATA.PATH_TO_DATA_DIR", data, options=("--check",)) == 0
    printed = capsys.readouterr().out
    assert "check passed" in printed and "fewer than 10 videos for train: G1 " in printed
    counts = [line.split()[-3:] for line in printed.splitlines() if line.startswith(("G2 left-right", "subjects"))]
    assert counts == [["2", "1", "1"]] * 2  # clips of a class, and people, in each list
    assert not (tmp_path / "a/checkpoints").exists()
    damaged = sorted((data / "val").glob("*.avi"))[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    lists = ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics", "DATA.PATH_TO_DATA_DIR", data]
    (data / "test.csv").write_text("".join((data / "test.csv").read_text().splitlines(keepends=True)[2:]))
    names = ["DATA.CLASS_NAMES_PATH", data / "class_names.txt", "DATA.RANDOM_FLIP", True]
    assert run(tmp_path / "b", *lists, *names, options=("--check",)) == 1
    captured = capsys.readouterr()
    assert "WARNING: test list: 2 of 12 classes have no video: 0 (G1 up-down), 1 (G2 left-right)\n" in captured.out
    assert "into one another, and their labels stay: 'G3 circle clockwise' and 'G4 circle counter-" in captured.out
    assert run(tmp_path / "c", *lists, *names, "DATA.FLIP_LABEL_MAP", "[[G3, G4]]", options=("--check",)) == 1
    assert "'G3' is no class" in capsys.readouterr().err
    assert damaged.name in captured.out and "1 video(s) cannot be read" in captured.err


def test_keys_that_the_run_does_not_use_are_told(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "SSV2.INPUT", "videos", "TEST.ENABLE", False) == 0
    assert "set but not used by this run: SSV2.INPUT (command line)" in capsys.readouterr().out


@pytest.mark.parametrize("attention", ["joint_space_time", "space_only"])
def test_other_attention_mixing_and_precision(tmp_path: Path, run: Run, attention: str) -> None:
    flips = ["DATA.RANDOM_FLIP", True, "DATA.FLIP_LABEL_MAP", "[[2,3],[4,5]]"]
    options = ["TIMESFORMER.ATTENTION_TYPE", attention, "MIXUP.ENABLED", True, "PRECISION", "bf16", *flips]
    assert run(tmp_path, *options, "TEST.ENABLE", False) == 0


def test_two_processes_train_and_test_as_one_does(tmp_path: Path, run: Run, tiny: list[str]) -> None:
    """24 clips in steps of 23: in the last step the second process has no clip, and takes part all the same."""
    assert run(tmp_path / "one", "GLOBAL_BATCH_SIZE", 23) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "tools/run_net.py"]
    command += ["--cfg", "configs/Gestures/LightTimeSformer_demo.yaml", *tiny, "OUTPUT_DIR", str(tmp_path / "two")]
    command += ["GLOBAL_BATCH_SIZE", "23"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    torch.testing.assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), rtol=1e-3, atol=1e-4)
    scores = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert scores[0]["scored"] == scores[1]["scored"] == 12
    tables = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("one", "two")]
    columns = [[line.split(",")[:2] for line in table] for table in tables]
    assert columns[0] == columns[1] and len(tables[0]) == 1 + 12  # each video once, in the order of the list


def test_several_labels_per_video(tmp_path: Path, run: Run, gestures_dir: Path) -> None:
    """mAP takes the place of top-1, from lists with labels such as 3;7 to results.json."""
    render = run(tmp_path / "first", "TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 1, "SOLVER.WARMUP_EPOCHS", 0)
    assert render == 0
    for split in ("train", "val", "test"):
        rows = [line.rsplit(" ", 1) for line in (gestures_dir / f"{split}.csv").read_text().splitlines()]
        lines = [f"{gestures_dir / path} {label};{(int(label) + 1) % 12}\n" for path, label in rows]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    kinetics = ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics", "DATA.PATH_TO_DATA_DIR", tmp_path]
    several = ["DATA.MULTI_LABEL", True, "MODEL.LOSS_FUNC", "bce_logit", "SOLVER.LABEL_SMOOTHING", 0]
    assert run(tmp_path / "out", *kinetics, *several) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert 0 < results["mAP"] <= 100 and "top1" not in results
    assert "0;1" in (tmp_path / "out/predictions.csv").read_text()
    assert (tmp_path / "out/curves.png").stat().st_size > 10_000


def test_a_refused_command_and_a_check_leave_the_record_of_the_run_alone(tmp_path: Path, run: Run) -> None:
    assert run(tmp_path, "TEST.ENABLE", False) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path.name != "log.txt"}
    assert run(tmp_path, "TRAIN.AUTO_RESUME", True, "SOLVER.BASE_LR", 77) == 1
    assert run(tmp_path, "SOLVER.BASE_LR", 0.25, options=("--check",)) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path.name != "log.txt"}
    assert after == before


def test_a_start_over_drops_the_rows_of_a_run_that_left_no_checkpoint(tmp_path: Path, run: Run) -> None:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "epoch": 0.3, "step": 1, "loss": 9.0}\n{"kind": "tr')
    assert run(tmp_path, "TEST.ENABLE", False) == 0
    assert [row["epoch"] for row in history(tmp_path, "train")] == [0.5, 1.0, 1.5, 2.0]


def test_a_loss_that_is_not_finite_names_its_clips(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "SOLVER.BASE_LR", 1e6, "SOLVER.WARMUP_EPOCHS", 0, "LOG_PERIOD", 4) == 1
    printed = capsys.readouterr().err
    assert (
        "NaN or infinite at step 2" in printed
        and ".avi (train.csv:" in printed
        and "SOLVER.CLIP_GRAD_NORM 1" in printed
    )


def test_a_cache_that_has_no_room_at_the_end_costs_a_training_nothing(
    tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_space = caching.check_space

    def full_later(folder: Path, summary: str, *numbers: int, **limit: float) -> None:
        if (tmp_path / "curves.png").exists():
            raise ConfigError("DATA_LOADER.CACHE disk: 1 GB, where 0 GB are free")
        check_space(folder, summary, *numbers, **limit)

    monkeypatch.setattr(caching, "check_space", full_later)
    words = ("DATA_LOADER.CACHE", "disk", "DATA_LOADER.CACHE_DIR", tmp_path / "cache", "SOLVER.MAX_EPOCH", 1)
    assert run(tmp_path, *words) == 0
    assert "reads its videos without a cache" in capsys.readouterr().out
    assert run(tmp_path, *words, "TRAIN.ENABLE", False) == 1  # here nothing is lost
