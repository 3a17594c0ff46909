"""Initialise, fine-tune, resume: three things with three messages, and nothing implicit between them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from timesformer.distributed import group as distributed
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.checkpoint import Position
from timesformer.engine.load_weights import clip_warnings
from timesformer.engine.start import WORK_PER_THREAD, _newest_for_all, step_threads
from timesformer.utils.compute import cpu_threads
from timesformer.utils.errors import UserError
from timesformer.video.clip_spec import ClipSpec

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]
NO_TEST = ("TEST.ENABLE", False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Holds the folder of one run of two epochs, once it is made."""
    return []


@pytest.fixture
def first_run(finished: list[Path], tmp_path_factory: pytest.TempPathFactory, run: Run, capsys: Captured) -> Path:
    """A run of two epochs with an average of the weights."""
    if not finished:
        folder = tmp_path_factory.mktemp("finished")
        assert run(folder, *NO_TEST, "EMA.ENABLED", True) == 0
        finished.append(folder)
    capsys.readouterr()
    return finished[0]


def content(folder: Path) -> dict[str, Any]:
    newest = checkpoints.newest_checkpoint(folder)
    assert newest is not None
    return checkpoints.read_checkpoint(newest)


def test_a_checkpoint_explains_itself(first_run: Path) -> None:
    found = content(first_run)
    assert found["class_names"][0] and len(found["class_names"]) == 12
    assert found["num_threads"] == (torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1)
    assert found["preprocessing"] == {
        "mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "rgb", "crop_mode": "crop",
        "short_side": 32, "size": [32, 32], "shuffle_frames": False,
        "num_frames": 4, "sampling_rate": "auto", "target_fps": 30.0, "input": "rgb", "difference_frames": 4,
    }  # fmt: skip
    assert found["metrics"]["top1"] == found["best_score"] or "loss" in found["metrics"]
    assert found["versions"]["libraries"]["torch"] and found["dataset"]["train"].startswith("sha256")
    assert found["model_state"].keys() == found["ema_state"].keys()
    assert not torch.equal(found["model_state"]["model.head.weight"], found["ema_state"]["model.head.weight"])


def test_nothing_is_said_plainly(tmp_path: Path, run: Run, capsys: Captured) -> None:
    assert run(tmp_path, *NO_TEST, "SOLVER.MAX_EPOCH", 1) == 0
    assert "training from scratch (no pretrained weights)" in capsys.readouterr().out


def test_initialise(first_run: Path, tmp_path: Path, run: Run, capsys: Captured) -> None:
    path = checkpoints.newest_checkpoint(first_run)
    assert run(tmp_path, *NO_TEST, "SOLVER.MAX_EPOCH", 1, "MODEL.WEIGHTS", path) == 0
    printed = capsys.readouterr().out
    assert f"initialising: a new run from the weights of {path} (MODEL.WEIGHTS)" in printed
    assert "loaded" in printed and "moving average" in printed
    assert checkpoints.position_of(content(tmp_path)) == Position(1)


def test_fine_tune_warns_of_other_pixels(first_run: Path, tmp_path: Path, run: Run, capsys: Captured) -> None:
    path = checkpoints.newest_checkpoint(first_run)
    source = [
        "TRAIN.CHECKPOINT_FILE_PATH",
        path,
        "TRAIN.FINETUNE",
        True,
        "MODEL.WEIGHTS",
        "nowhere.pyth",
    ]
    assert run(tmp_path, *NO_TEST, "SOLVER.MAX_EPOCH", 1, *source, "DATA.CHANNEL_ORDER", "bgr") == 0
    printed = capsys.readouterr().out
    assert f"fine-tuning: a new run from the weights of {path} (TRAIN.CHECKPOINT_FILE_PATH, TRAIN.FINETUNE)" in printed
    assert "MODEL.WEIGHTS nowhere.pyth is not loaded" in printed
    assert "was trained with DATA.CHANNEL_ORDER rgb, this run uses bgr" in printed
    assert content(tmp_path)["optimizer_state"]["state"][0]["step"] == 2  # of this run alone


def test_defect_02_fine_tuning_at_another_number_of_frames_and_size(
    first_run: Path, tmp_path: Path, run: Run, capsys: Captured
) -> None:
    path = checkpoints.newest_checkpoint(first_run)
    source = ["TRAIN.CHECKPOINT_FILE_PATH", path, "TRAIN.FINETUNE", True, "DATA.NUM_FRAMES", 6]
    larger = ["DATA.TRAIN_CROP_SIZE", 40, "DATA.TEST_CROP_SIZE", 40, "DATA.TRAIN_JITTER_SCALES", "[40,48]"]
    assert run(tmp_path, *source, *larger, "SOLVER.MAX_EPOCH", 1) == 0
    printed = capsys.readouterr().out
    assert "time_embed 4 -> 6 frames (linear)" in printed and "pos_embed 4x4 -> 5x5 (bicubic)" in printed
    assert content(tmp_path)["model_state"]["model.time_embed"].shape == (1, 6, 24)


def test_resume_from_a_named_checkpoint(
    first_run: Path, tmp_path: Path, run: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = dict.fromkeys(content(first_run)["cpu_kernels"], False)
    monkeypatch.setattr(
        "timesformer.models.cpu_kernels.measured_forms", lambda *_, **__: chosen
    )  # not for a resumed run
    path = checkpoints.checkpoint_path(first_run, Position(1))
    resume = [*NO_TEST, "EMA.ENABLED", True, "TRAIN.CHECKPOINT_FILE_PATH", path]
    assert run(tmp_path / "same", *resume) == 0
    printed = capsys.readouterr().out
    assert f"resuming from {path}, after 1 epoch (TRAIN.CHECKPOINT_FILE_PATH)" in printed
    assert "CPU kernels, as the run chose before: own form of " in printed and chosen
    assert content(tmp_path / "same")["cpu_kernels"] == content(first_run)["cpu_kernels"]
    for name in ("model_state", "ema_state"):
        torch.testing.assert_close(content(tmp_path / "same")[name], content(first_run)[name], rtol=0, atol=0)
    assert run(tmp_path / "other", *resume, "SOLVER.BASE_LR", 0.01) == 0
    assert "was trained otherwise:\n  SOLVER.BASE_LR: 0.001 there, 0.01 here" in capsys.readouterr().out
    assert run(tmp_path / "other size", *resume, "TIMESFORMER.EMBED_DIM", 36) == 1
    printed = capsys.readouterr().err
    assert "a run resumes only with the same one" in printed and "TIMESFORMER.EMBED_DIM: 24 there, 36 here" in printed
    assert run(tmp_path / "sgd", *resume, "SOLVER.OPTIMIZING_METHOD", "sgd") == 1
    assert "trained with another SOLVER.OPTIMIZING_METHOD" in capsys.readouterr().err
    assert run(tmp_path / "hub", *resume[:-1], "hf:owner/name") == 1
    assert "hf:owner/name holds weights only" in capsys.readouterr().err
    assert run(tmp_path / "no average", *resume[:-4], "TRAIN.CHECKPOINT_FILE_PATH", path) == 0


def test_another_precision_is_told(first_run: Path, tmp_path: Path, run: Run, capsys: Captured) -> None:
    path = checkpoints.checkpoint_path(first_run, Position(1))
    resume = [*NO_TEST, "EMA.ENABLED", True, "TRAIN.CHECKPOINT_FILE_PATH", path]
    assert run(tmp_path, *resume, "PRECISION", "bf16") == 0
    printed = capsys.readouterr().out
    assert "it computed in fp32, now in bf16; to keep it: PRECISION fp32" in printed
    assert "bf16 (PRECISION bf16)" in printed and content(tmp_path)["precision"] == "bf16"


@pytest.mark.parametrize(
    "before, work, environ, wanted",
    [
        (0, 0, {}, 1),
        (0, 2 * WORK_PER_THREAD, {}, 2),
        (0, 9 * WORK_PER_THREAD, {}, 3),  # its share of the cores
        (0, 0, {"OMP_NUM_THREADS": "3"}, 3),
        (2, 0, {}, 2),  # a resumed run keeps its number
        (4, 0, {}, 4),
        (2, 0, {"OMP_NUM_THREADS": "3"}, 3),
        (5, 0, {}, 3),  # more than there are cores
    ],
)
def test_threads_of_a_step(
    before: int, work: int, environ: dict[str, str], wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timesformer.engine.start.available_cpus", lambda: 4)
    with cpu_threads(3):
        assert step_threads(before, work, environ) == wanted


def test_a_resumed_run_keeps_its_number_of_threads(
    first_run: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timesformer.engine.start.available_cpus", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path, found = (
        tmp_path / "two.pyth",
        checkpoints.read_checkpoint(checkpoints.checkpoint_path(first_run, Position(1))),
    )
    torch.save(found | {"num_threads": found["num_threads"] + 1}, path)
    resume = [*NO_TEST, "EMA.ENABLED", True, "TRAIN.CHECKPOINT_FILE_PATH", path]
    with cpu_threads(1):  # the run sets its own
        assert run(tmp_path / "resumed", *resume) == 0
    assert content(tmp_path / "resumed")["num_threads"] == found["num_threads"] + 1


def test_defect_17_a_finished_checkpoint_says_so_instead_of_training_no_epoch(
    first_run: Path, tmp_path: Path, run: Run, capsys: Captured
) -> None:
    path = checkpoints.checkpoint_path(first_run, Position(2))
    assert run(tmp_path, "EMA.ENABLED", True, "TRAIN.CHECKPOINT_FILE_PATH", path) == 1
    printed = capsys.readouterr().err
    assert "2 epochs behind it and SOLVER.MAX_EPOCH is 2: nothing is left to train" in printed
    assert "TRAIN.FINETUNE True" in printed and "SOLVER.MAX_EPOCH 4" in printed
    assert not (tmp_path / "metrics.jsonl").exists()


def test_epoch_reset_takes_weights_and_optimiser(first_run: Path, tmp_path: Path, run: Run, capsys: Captured) -> None:
    path = checkpoints.checkpoint_path(first_run, Position(2))
    settings = ["TRAIN.CHECKPOINT_FILE_PATH", path, "TRAIN.CHECKPOINT_EPOCH_RESET", True, "SOLVER.MAX_EPOCH", 1]
    assert run(tmp_path, *NO_TEST, *settings) == 0
    assert f"weights and optimiser of {path}, from epoch 0" in capsys.readouterr().out
    assert content(tmp_path)["optimizer_state"]["state"][0]["step"] == 4 + 2
    assert checkpoints.position_of(content(tmp_path)) == Position(1)


def test_a_damaged_newest_checkpoint_costs_one_epoch(tmp_path: Path, run: Run, capsys: Captured) -> None:
    assert run(tmp_path, *NO_TEST) == 0
    before, newest = content(tmp_path), checkpoints.checkpoint_path(tmp_path, Position(2))
    newest.write_bytes(newest.read_bytes()[:5000])
    assert run(tmp_path, *NO_TEST, "TRAIN.AUTO_RESUME", True) == 0
    printed = capsys.readouterr().out
    assert "cut off" in printed and "Going back to checkpoint_epoch_00001.pyth" in printed
    torch.testing.assert_close(content(tmp_path)["model_state"], before["model_state"], rtol=0, atol=0)


def two_nodes(rank: int, folder: str, path: str) -> None:
    """The second does not see yet what the first has written."""
    distributed.join(f"file://{folder}/meeting", rank=rank, world_size=2, hosts_store=False, backend="gloo", seconds=60)
    run = SimpleNamespace(
        cfg=SimpleNamespace(OUTPUT_DIR=str(Path(path).parents[1])),
        processes=SimpleNamespace(rank=rank),
        events=SimpleNamespace(is_main=rank == 0),
    )
    found = _newest_for_all(run)
    assert found is not None and str(found[0]) == path and found[1]["model_state"]
    read = checkpoints.read_checkpoint
    if rank == 1:
        checkpoints.read_checkpoint = lambda _: read("gone.pyth")
    with pytest.raises(UserError, match=r"rank 1: .*gone.pyth"):
        _newest_for_all(run)
    distributed.barrier()
    dist.destroy_process_group()  # left to the end of the process, its threads may abort it


def test_a_checkpoint_that_one_process_cannot_read_ends_all(first_run: Path, tmp_path: Path) -> None:
    path = checkpoints.newest_checkpoint(first_run)
    torch.multiprocessing.spawn(two_nodes, args=(str(tmp_path), str(path)), nprocs=2)


def test_the_test_takes_the_average_when_it_is_on(first_run: Path, tmp_path: Path, run: Run, capsys: Captured) -> None:
    path = checkpoints.newest_checkpoint(first_run)
    only_test = ["TRAIN.ENABLE", False, "TEST.CHECKPOINT_FILE_PATH", path]
    scores = {}
    for ema in (True, False):
        assert run(tmp_path / str(ema), *only_test, "EMA.ENABLED", ema) == 0
        printed = capsys.readouterr().out
        assert ("moving average)" in printed) == ema and "set but not used" not in printed
        assert ("EMA.ENABLED True takes it" in printed) == (not ema)
        scores[ema] = (tmp_path / str(ema) / "predictions.csv").read_text()
    assert scores[True] != scores[False]
    assert run(tmp_path / "c", *only_test, "DATA.NUM_FRAMES", 3, "DATA.MEAN", "[0.5,0.5,0.5]") == 0
    printed = capsys.readouterr().out
    assert "To use the same, type DATA.NUM_FRAMES 4" in printed and "type DATA.MEAN [0.45,0.45,0.45]" in printed


def test_a_start_that_names_no_file_is_refused(tmp_path: Path, run: Run, capsys: Captured) -> None:
    assert run(tmp_path, "TRAIN.FINETUNE", True) == 1
    assert "TRAIN.FINETUNE True needs a file to start from" in capsys.readouterr().err


def test_check_sees_what_the_run_would_stumble_on(first_run: Path, tmp_path: Path, run: Run, capsys: Captured) -> None:
    path = checkpoints.checkpoint_path(first_run, Position(1))
    resume = ["TRAIN.CHECKPOINT_FILE_PATH", path, "EMA.ENABLED", True, "SOLVER.OPTIMIZING_METHOD", "sgd"]
    assert run(tmp_path, *resume, options=("--check",)) == 1
    assert "trained with another SOLVER.OPTIMIZING_METHOD" in capsys.readouterr().err


def test_check_loads_the_weights_and_names_missing_ones(
    first_run: Path, tmp_path: Path, run: Run, capsys: Captured
) -> None:
    path = checkpoints.newest_checkpoint(first_run)
    assert run(tmp_path, "MODEL.WEIGHTS", path, options=("--check",)) == 0
    assert "initialising" in capsys.readouterr().out
    wrong = ["MODEL.WEIGHTS", path, "TIMESFORMER.DEPTH", 2]
    assert run(tmp_path, *wrong, options=("--check",)) == 1
    assert "set TIMESFORMER.DEPTH 1" in capsys.readouterr().err
    assert run(tmp_path, "TEST.CHECKPOINT_FILE_PATH", "gone.pyth", options=("--check",)) == 0
    assert "TEST.CHECKPOINT_FILE_PATH gone.pyth does not exist" in capsys.readouterr().out


def test_validation_scores_the_average_of_the_weights(first_run: Path) -> None:
    rows = [json.loads(line) for line in (first_run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "val"][-1]
    assert content(first_run)["metrics"]["loss"] == pytest.approx(last["loss"])


def test_other_clips_than_those_of_the_weights_are_reported() -> None:
    trained = {"mean": (0.45, 0.45, 0.45), "num_frames": 16}
    lines = clip_warnings(ClipSpec(mean=(0.5, 0.5, 0.5)), "w.pyth", trained, frames=False)
    assert len(lines) == 1 and lines[0].endswith("type DATA.MEAN [0.45,0.45,0.45]")
    lines = clip_warnings(ClipSpec(mean=(0.5, 0.5, 0.5)), "w.pyth", trained, frames=True)
    assert len(lines) == 2 and lines[1].endswith("this run uses 8. To use the same, type DATA.NUM_FRAMES 16")
