"""Datasets and the guard of decoding work where the system has no fork, fcntl, user numbers or alarm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.media import write_video

ROOT = Path(__file__).parents[2]

# What every process of a test does first.
ABSENCES = """
import os, signal, subprocess, sys
import portalocker  # which fvcore needs, and which needs fcntl on this system
sys.modules["fcntl"] = None
del os.fork, os.getuid, signal.setitimer, signal.SIGALRM, signal.SIGKILL
os.environ["USERNAME"] = "user"
subprocess.Popen.kill = lambda self: os.kill(self.pid, 9)  # needs no signal where there are none
"""

IMPORT_ALL = """
import importlib, os, pkgutil, signal
import timesformer.datasets
assert not hasattr(os, "fork") and not hasattr(signal, "SIGALRM")
for module in pkgutil.walk_packages(timesformer.datasets.__path__, "timesformer.datasets."):
    importlib.import_module(module.name)
"""

LOAD = """
import sys
from tests.datasets.guarded_functions import call, double, leave, nap, number_of_process
from timesformer.datasets.guarded import START_METHOD, GuardedCall

if __name__ == "__main__":
    assert START_METHOD == "spawn"
    guarded = GuardedCall(call, timeout_sec=0.5)
    assert guarded(double, 3) == 6
    first = guarded(number_of_process)
    for error, arguments in ((TimeoutError, (nap, 60)), (ChildProcessError, (leave,))):
        try:
            guarded(*arguments)
        except error as caught:
            print(caught)
    assert guarded(number_of_process) != first

    from torch.utils.data import DataLoader
    from timesformer.datasets.video_dataset import VideoDataset
    from timesformer.video.clip_spec import ClipSpec

    spec = ClipSpec(num_frames=4, size=(32, 32), sampling_rate="auto")
    dataset = VideoDataset([sys.argv[1], "gone.mp4"], labels=[1, 0], spec=spec, timeout_sec=60.0)
    (batch,) = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    assert (batch.clips == dataset[0].views).all() and batch.labels == [1]
    print(*batch.failures)
"""

END_AFTER = """
import time
from timesformer.datasets.guarded import _end_after
_end_after(60)
_end_after(0)
_end_after(0.2)
time.sleep(60)
"""

MEMORY = """
from pathlib import Path
from timesformer.datasets import cache_folders
from timesformer.utils.errors import UserError
cache_folders.SHARED_MEMORY = Path("/nowhere/shm")
try:
    cache_folders.memory_folder("run")
except UserError as error:
    print(error)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Of processes, and of those that they start, which lack all of it."""
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "sitecustomize.py").write_text(ABSENCES)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "lacking"), str(ROOT)])}


def run(code: str, environ: dict[str, str], folder: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    (folder / "main.py").write_text(code)
    command = [sys.executable, str(folder / "main.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120)


def output(*arguments: Any) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_module_of_the_datasets_can_be_imported(environ: dict[str, str], tmp_path: Path) -> None:
    output(IMPORT_ALL, environ, tmp_path)


def test_clips_are_read_in_loader_processes_with_a_guard(environ: dict[str, str], tmp_path: Path) -> None:
    lines = output(LOAD, environ, tmp_path, write_video(tmp_path / "a.mp4")).splitlines()
    assert lines[:2] == ["no complete answer within 0.5 s", "its process ended with status 3"]
    assert lines[2].startswith("gone.mp4 (path): ")


@pytest.mark.parametrize("lacking", [True, False])
def test_a_process_ends_itself_after_the_limit(lacking: bool, environ: dict[str, str], tmp_path: Path) -> None:
    done = run(END_AFTER, environ if lacking else {**environ, "PYTHONPATH": str(ROOT)}, tmp_path)
    assert done.returncode == (1 if lacking else -14)  # by SIGALRM
    assert lacking == ("Timeout (0:00:00.2" in done.stderr)


def test_without_shared_memory_the_cache_names_the_other_kind(environ: dict[str, str], tmp_path: Path) -> None:
    message = "DATA_LOADER.CACHE memory needs /nowhere/shm, which cannot be written here. Type DATA_LOADER.CACHE disk\n"
    assert output(MEMORY, environ, tmp_path) == message
