"""A run that was killed and started again looks like one that was not: the same losses, metrics, weights."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.datasets.media import write_video
from tests.fuzz.damage import damaged
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.checkpoint import Position

ROOT = Path(__file__).parents[2]
CFG = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"
EVERYTHING_RANDOM = {
    "DATA.AUTO_AUGMENT": "rand-m7-n2", "DATA.COLOR_JITTER": 0.4, "DATA.RE_PROB": 0.25,
    "AUG.SHIFT": 0.1, "AUG.ZOOM": "[0.8, 1.25]", "AUG.ROTATION": 10.0, "AUG.PERSPECTIVE": 0.05, "AUG.GAMMA": 0.3,
    "AUG.GRAY_PROB": 0.3, "AUG.BLUR": 1.0, "AUG.NOISE": 0.05, "AUG.JPEG_QUALITY": 40,
    "AUG.SPEED": 0.3, "AUG.TRIM": 0.1, "DATA.INPUT": "rgb+difference", "DATA.DIFFERENCE_FRAMES": 2,
    "DATA.RANDOM_FLIP": True, "DATA.FLIP_LABEL_MAP": "[[2,3],[4,5],[6,7],[8,9],[10,11]]",
    "MIXUP.ENABLED": True, "MODEL.DROP_PATH_RATE": 0.5, "MODEL.DROP_RATE": 0.1, "TIMESFORMER.DEPTH": 2,
    "EMA.ENABLED": True, "TRAIN.FREEZE": "['patch_embed.*']", "SOLVER.LAYER_DECAY": 0.75,
    "TRAIN.BATCH_SIZE": 2, "GLOBAL_BATCH_SIZE": 4, "DATA_LOADER.NUM_WORKERS": 1,
    "TRAIN.CHECKPOINT_PERIOD_STEPS": 4, "LOG_PERIOD": 3, "TEST.ENABLE": False, "TENSORBOARD.ENABLE": False,
}  # fmt: skip
NUM_STEPS = 12  # 2 epochs of 24 clips in steps of 4


def rows(folder: Path) -> list[dict[str, Any]]:
    """What was measured, without how long it took."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in ("clips_per_sec", "data_wait")} for x in lines]


def final_state(folder: Path) -> dict[str, Any]:
    newest = checkpoints.newest_checkpoint(folder)
    assert newest is not None
    content = checkpoints.read_checkpoint(newest)
    return {name: content[name] for name in content if name not in ("cfg", "versions")}


def assert_same_run(a: Path, b: Path) -> None:
    assert rows(a) == rows(b)
    assert_identical(final_state(a), final_state(b))


def assert_identical(a: Any, b: Any, where: str = "") -> None:
    """Bit for bit, tensors and plain values."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for name in a:
            assert_identical(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for place, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_identical(one, other, f"{where}[{place}]")
    else:
        assert a == b, where


def words(tiny: list[str], folder: Path, **more: object) -> list[str]:
    settings = EVERYTHING_RANDOM | {name.replace("__", "."): value for name, value in more.items()}
    own = [str(word) for pair in settings.items() for word in pair]
    return ["--cfg", str(CFG), *tiny, *own, "TRAIN.AUTO_RESUME", "True", "OUTPUT_DIR", str(folder)]


def command(arguments: list[str], num_processes: int) -> list[str]:
    run_net = [str(ROOT / "tools/run_net.py"), *arguments]
    if num_processes == 1:
        return [sys.executable, *run_net]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={num_processes}",
        *run_net,
    ]


def signal_everything_about(word: str, number: int) -> None:
    """A signal to all processes with `word` in their command line: launcher, training processes, loader processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                os.kill(int(path.parent.name), number)


def folder_of(line: list[str]) -> str:
    """The output folder in a command line; without one, the last word."""
    return line[line.index("OUTPUT_DIR") + 1] if "OUTPUT_DIR" in line else line[-1]


def train_with_kills(line: list[str], kill_now: Callable[[float], bool], log: Path, *, most_kills: int) -> list[float]:
    """Run the command, kill all of its processes whenever `kill_now(seconds since start)`, run it again, until it ends.

    Returns:
        The moments of the kills.
    """
    kills: list[float] = []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    while True:
        with log.open("ab") as output:
            process = subprocess.Popen(line, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
        started = time.monotonic()
        while process.poll() is None:
            time.sleep(0.005)
            if len(kills) < most_kills and kill_now(time.monotonic() - started):
                signal_everything_about(folder_of(line), signal.SIGKILL)
                process.wait()
                kills.append(time.monotonic() - started)
                break
        else:
            assert process.returncode == 0, log.read_text()[-3000:]
            return kills


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    train_with_kills(command(words(tiny, folder), 1), lambda _: False, folder / "out.txt", most_kills=0)
    return folder


def test_a_killed_run_goes_on_inside_the_epoch_to_the_same_end(whole: Path, tmp_path: Path, tiny: list[str]) -> None:
    killed, log = tmp_path / "killed", tmp_path / "killed.txt"
    position = checkpoints.checkpoint_path(killed, Position(0, 4))

    def when_four_steps_are_saved(_: float) -> bool:
        return position.exists()

    kills = train_with_kills(command(words(tiny, killed), 1), when_four_steps_are_saved, log, most_kills=1)
    assert len(kills) == 1 and "after 0 epochs and 4 steps (TRAIN.AUTO_RESUME)" in log.read_text()
    assert_same_run(whole, killed)
    assert [row["step"] for row in rows(killed) if row["kind"] == "train"] == [3, 6, 9, 12]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGUSR2, 75),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_saves_the_step_and_names_the_way_on(
    whole: Path, tmp_path: Path, tiny: list[str], number: int, status: int
) -> None:
    """As a cluster does before its time limit; the loader process gets it too, and continues loading."""
    folder = tmp_path / "stopped"
    line = command([*words(tiny, folder), "TRAIN.CHECKPOINT_PERIOD_STEPS", "0"], 1)
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    signal_everything_about(str(folder), number)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == status, printed
    assert "stopping after this step" in printed and "to resume: TRAIN.AUTO_RESUME True" in printed
    assert "Traceback" not in printed
    saved = checkpoints.newest_checkpoint(folder)
    assert saved is not None and checkpoints.position_of(checkpoints.read_checkpoint(saved)) > Position()
    train_with_kills(line, lambda _: False, tmp_path / "out.txt", most_kills=0)
    assert_same_run(whole, folder)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes, num_kills", [(1, 10), (2, 5), (4, 2)])
def test_defect_19_kill_at_random_moments(tmp_path: Path, tiny: list[str], num_processes: int, num_kills: int) -> None:
    """Each start is killed at a random moment between its first step and its last, until so many kills have been."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    steps = {"TRAIN__CHECKPOINT_PERIOD_STEPS": 1, "LOG_PERIOD": 1, "SOLVER__MAX_EPOCH": 8}
    steps |= {"TRAIN__BATCH_SIZE": 2 * num_processes, "GLOBAL_BATCH_SIZE": 4 * num_processes}
    line = command(words(tiny, whole, **steps), num_processes)
    train_with_kills(line, lambda _: False, tmp_path / "whole.txt", most_kills=0)
    chance = random.Random(num_processes)
    wait = [0.0, 0.0]  # the rows there were at the start of waiting, and the moment to kill at

    def at_a_random_moment(seconds: float) -> bool:
        path = killed / "metrics.jsonl"
        num_rows = len(path.read_text().splitlines()) if path.exists() else 0
        if wait[1] == 0.0 and num_rows > wait[0]:  # this start has taken a step
            wait[1] = seconds + chance.uniform(0.0, 0.2)
        if 0.0 < wait[1] <= seconds:
            wait[:] = [num_rows, 0.0]
            return True
        return False

    log = tmp_path / "killed.txt"
    line = command(words(tiny, killed, **steps), num_processes)
    kills = train_with_kills(line, at_a_random_moment, log, most_kills=num_kills)
    resumed = [part.partition(" (TRAIN")[0] for part in log.read_text().split("/checkpoints/")[1:] if "after" in part]
    print(f"{len(kills)} kills; resumed from", resumed)
    assert len(kills) == num_kills
    assert_same_run(whole, killed)


def test_checkpoints_by_the_clock_change_nothing(tmp_path: Path, run: Callable[..., int]) -> None:
    """Taken between two log lines too: what the next line is a mean of is in the checkpoint."""
    base = ("TEST.ENABLE", False, "GLOBAL_BATCH_SIZE", 4, "TRAIN.BATCH_SIZE", 4, "LOG_PERIOD", 4)
    assert run(tmp_path / "plain", *base, "TRAIN.CHECKPOINT_PERIOD_MINUTES", 0) == 0
    assert run(tmp_path / "often", *base, "TRAIN.CHECKPOINT_PERIOD_MINUTES", 1e-9, "TRAIN.CHECKPOINT_KEEP", 0) == 0
    assert_same_run(tmp_path / "plain", tmp_path / "often")
    saved = [path.name for path in checkpoints.list_checkpoints(tmp_path / "often")][::-1]
    steps = [f"_step_{step:06d}.pyth" for step in range(1, 7)]  # the last before the epoch's validation
    assert saved == [
        *(f"checkpoint_epoch_00000{step}" for step in steps),
        "checkpoint_epoch_00001.pyth",
        *(f"checkpoint_epoch_00001{step}" for step in steps),
        "checkpoint_epoch_00002.pyth",
    ]
    for name in saved[3:]:  # go back to 3 steps
        (tmp_path / "often/checkpoints" / name).unlink()
    assert run(tmp_path / "often", *base, "TRAIN.AUTO_RESUME", True, "TRAIN.CHECKPOINT_PERIOD_MINUTES", 0) == 0
    assert_same_run(tmp_path / "plain", tmp_path / "often")


def damaged_videos(folder: Path) -> Path:
    """A folder of lists whose videos are partly damaged: some are read with a warning, some not at all."""
    generator, lines = random.Random(0), []
    folder.mkdir()
    for number in range(24):
        name, codec = (f"{number}.mp4", "libx264") if number % 2 else (f"{number}.avi", "mpeg4")
        path = write_video(folder / name, num_frames=40, gop=10, codec=codec)
        if number % 3 == 0:
            path.write_bytes(damaged(path.read_bytes(), generator)[1])
        lines.append(f"{name} {number % 3}\n")
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_damaged_clips_change_nothing(tmp_path: Path, tiny: list[str], num_processes: int) -> None:
    """Mixed precision, EMA, freezing, a disk cache and processes, resumed with a cache that has another history."""
    settings = {
        **{"TRAIN__BATCH_SIZE": 4},
        **{"TRAIN__DATASET": "kinetics", "TEST__DATASET": "kinetics", "MODEL__NUM_CLASSES": 3, "PRECISION": "bf16"},
        **{"DATA__PATH_TO_DATA_DIR": damaged_videos(tmp_path / "videos"), "DATA__MAX_FAILED_FRACTION": 0.9},
        **{
            "DATA_LOADER__CACHE": "disk",
            "DATA__FLIP_LABEL_MAP": "[]",
            "TRAIN__EVAL_PERIOD": 1,
            "TRAIN__CHECKPOINT_KEEP": 0,
        },
    }
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"

    def train(folder: Path, cache: str) -> str:
        line = command(words(tiny, folder, DATA_LOADER__CACHE_DIR=tmp_path / cache, **settings), num_processes)
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    log = train(whole, "cache")
    assert "clip left out" in log and "the decoder reports damaged frames" in log
    shutil.copytree(whole, resumed)
    for path in checkpoints.list_checkpoints(resumed)[:-1]:
        path.unlink()
    for path in (tmp_path / "cache").iterdir():
        damage = random.Random(path.name).random()
        if damage < 0.3:
            path.unlink()
        elif damage < 0.6:
            path.write_bytes(damaged(path.read_bytes(), random.Random(path.name))[1])
    assert "(TRAIN.AUTO_RESUME)" in train(resumed, "cache")
    assert_same_run(whole, resumed)
