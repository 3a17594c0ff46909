"""kill -9 at random moments of a run: what it leaves in the end is that of a run that nothing disturbed.

The moments are in turn those of every part of a run: importing, caching, steps, checkpoints being written, validation,
test. The run has loader processes, mixing, an average of the weights, frozen weights, a cache on the disk, and a
damaged clip in each list.
"""

from __future__ import annotations

import contextlib
import csv
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from tests.engine.test_resume import ROOT, assert_same_run, command, train_with_kills, words

pytestmark = pytest.mark.slow
SETTINGS = {
    "TEST__ENABLE": True, "DATA__MAX_FAILED_FRACTION": 0.5, "LOG_PERIOD": 1, "TRAIN__CHECKPOINT_PERIOD_STEPS": 1,
    "TRAIN__DATASET": "kinetics", "TEST__DATASET": "kinetics", "DATA_LOADER__CACHE": "disk",
}  # fmt: skip


def render(folder: Path) -> list[str]:
    sizes = "--num-subjects 2 1 1 --frame-size 48 48 --processes 2"
    return [sys.executable, "-m", "timesformer", "render", *sizes.split(), str(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, but locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != ".lock"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered gestures, undisturbed."""
    folder = tmp_path_factory.mktemp("clips")
    subprocess.run(render(folder), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def test_rendering(clips: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    folder, chance = tmp_path / "killed", random.Random(1)
    counts = [0, 1]  # clips that there were, and that there must be for the next kill

    def now(_: float) -> bool:
        counts[0] = len([*folder.glob("*/*.avi")]) if folder.exists() else 0
        if counts[0] < counts[1]:
            return False
        counts[1] = counts[0] + chance.randint(1, 8)
        return True

    kills = train_with_kills(render(folder), now, tmp_path / "log.txt", most_kills=pytestconfig.getoption("kills") // 5)
    assert kills and contents(folder) == contents(clips)


def test_a_killed_rendering_leaves_no_worker(tmp_path: Path) -> None:
    folder = tmp_path / "orphans"
    process = subprocess.Popen(render(folder), cwd=ROOT, stdout=subprocess.DEVNULL)
    while not [*folder.glob("*/*.avi")]:
        assert process.poll() is None
        time.sleep(0.05)
    workers = [int(line) for line in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(workers) >= 2
    process.kill()
    process.wait()
    given_up = time.monotonic() + 30.0
    while alive := [worker for worker in workers if Path(f"/proc/{worker}/exe").exists()]:
        assert time.monotonic() < given_up, f"still there: {alive}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def lists(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of the clips, one of each cut off."""
    folder = tmp_path_factory.mktemp("lists")
    for split in ("train", "val", "test"):
        with (clips / f"{split}.csv").open() as file:
            rows = [row for row in csv.reader(file, delimiter=" ") if row]
        rows = [[str(clips / path), label] for path, label in rows]
        whole = Path(rows[3][0])
        cut = folder / f"{split}_{whole.name}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
        rows[3][0] = str(cut)
        with (folder / f"{split}.csv").open("w") as file:
            csv.writer(file, delimiter=" ").writerows(rows)
    return folder


def test_a_run(tmp_path: Path, lists: Path, tiny: list[str], pytestconfig: pytest.Config) -> None:  # noqa: F811
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log.txt"
    num_kills: int = pytestconfig.getoption("kills") - pytestconfig.getoption("kills") // 5
    settings = SETTINGS | {"DATA__PATH_TO_DATA_DIR": lists, "SOLVER__MAX_EPOCH": 2 + num_kills // 4}

    def line(folder: Path) -> list[str]:
        cache = {"DATA_LOADER__CACHE_DIR": folder / "cache"}
        return command(words(tiny, folder, **settings, **cache), 1)

    train_with_kills(line(whole), lambda _: False, tmp_path / "whole.txt", most_kills=0)
    chance, parts = random.Random(2), moments(killed, log)
    names = [*["caching"] * (num_kills // 8), *["testing"] * (num_kills // 5), "starting"]
    others = [chance.choice([name for name in parts if name not in names]) for _ in range(num_kills - len(names))]
    order = sorted([*names, *others], key=lambda name: {"caching": 0, "testing": 2}.get(name, 1))  # as they come
    due = [0.0]  # when to kill, once the part has begun

    def now(seconds: float) -> bool:
        if not due[0] and parts[order[0]]():
            due[0] = seconds + chance.uniform(0.0, 0.15)
        if not 0.0 < due[0] <= seconds:
            return False
        due[0] = 0.0
        order.pop(0)
        return True

    kills = train_with_kills(line(killed), now, log, most_kills=num_kills)
    print(f"{len(kills)} kills", log.read_text().count("resuming from"), "resumed")
    assert len(kills) == num_kills
    assert_same_run(whole, killed)
    for name in ("predictions.csv", "results.json", "failed_clips.csv", "missing_videos.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert contents(killed / "cache").values() and not [*(killed / "checkpoints").glob("*.writing")]


def moments(folder: Path, log: Path) -> dict[str, Callable[[], bool]]:
    """Whether a part of the run is under way, by its name; each looks at what has changed since it was true."""
    seen = {"rows": 0, "log": 0, "cache": 0, "val": 0, "write": 0}

    def grows(name: str, number: int) -> bool:
        grown, seen[name] = number > seen[name], number
        return grown

    def metrics(kind: str) -> int:
        path = folder / "metrics.jsonl"
        return path.read_text().count(f'"kind": "{kind}"') if path.exists() else 0

    def mtime(path: Path) -> int:
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_mtime_ns
        return 0

    def size_of_log() -> int:
        return os.stat(log).st_size if log.exists() else 0

    return {
        "starting": lambda: grows("log", size_of_log()),
        "caching": lambda: grows("cache", len([*folder.glob("cache/*")])),
        "stepping": lambda: grows("rows", metrics("train")),
        "writing": lambda: grows("write", max([0, *map(mtime, folder.glob("checkpoints/*.writing"))])),
        "validating": lambda: metrics("train") > 0 and metrics("train") % 6 == 0 and grows("val", metrics("train")),
        "testing": lambda: log.exists() and "\ntesting" in log.read_text().rpartition("process on")[2],
    }
