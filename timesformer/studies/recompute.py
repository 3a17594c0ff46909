"""A run computed again in another folder: its test, and its training from one checkpoint to the next."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer.config.load import LoadedConfig
from timesformer.datasets.build import load_lists
from timesformer.distributed.launch import Processes, launch
from timesformer.engine.checkpoint import Position, checkpoint_path, read_checkpoint
from timesformer.engine.run import run
from timesformer.engine.setup import load_run_config, start_run
from timesformer.engine.train import train_epoch, validate
from timesformer.engine.training import prepare
from timesformer.utils.errors import Stopped
from timesformer.utils.files import json_lines
from timesformer.utils.logging import setup_logging


@dataclass(frozen=True)
class Recomputed:
    """What a stretch of a training left: the checkpoint at its end, and its rows of metrics.jsonl."""

    content: Mapping[str, Any]
    rows: list[dict[str, Any]]


@contextlib.contextmanager
def _quietly(config: Path, words: list[str]) -> Iterator[tuple[LoadedConfig, Path]]:
    """The configuration for a temporary OUTPUT_DIR; log lines are not shown."""
    with tempfile.TemporaryDirectory(prefix="timesformer-verify-") as folder:
        loaded = load_run_config(str(config), [*words, "OUTPUT_DIR", folder, "TENSORBOARD.ENABLE", "False"])
        with _no_output():
            yield loaded, Path(folder)


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Nothing on standard output, of the processes that are started either."""
    sys.stdout.flush()
    before = os.dup(1)
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            os.dup2(nothing.fileno(), 1)
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)
        setup_logging()  # the log file was in the temporary folder


def retest(config: Path, words: list[str], checkpoint: Path, read: Callable[[Path], Any]) -> Any:
    """Test a checkpoint as `config` says; what `read` makes of the folder with the results.

    Raises:
        UserError: the test cannot be made here.
    """
    own = ["TRAIN.ENABLE", "False", "TEST.ENABLE", "True", "TEST.CHECKPOINT_FILE_PATH", os.path.abspath(checkpoint)]
    own += ["TEST.BASELINES", "False", "TEST.AUDITS", "False", "TEST.REPORT", "False"]
    with _quietly(config, [*words, *own]) as (loaded, folder):
        launch(loaded.cfg, run, loaded, False)
        return read(folder)


def retrain(config: Path, words: list[str], start: Path | None, end: Position, *, threads: int) -> Recomputed:
    """Train from the checkpoint `start` (None: from the beginning) to the position `end`, in the same steps.

    Args:
        config: config.yaml of the run.
        words: keys and values on top of it.
        start: of the run; it is only read.
        end: where the next checkpoint was taken.
        threads: of each process on a CPU, on which the last bits depend; 0: as many as by default.

    Raises:
        UserError: the training cannot be computed here.
    """
    own = ["TRAIN.ENABLE", "True", "TRAIN.AUTO_RESUME", "True", "TEST.ENABLE", "False"]
    own += ["TRAIN.CHECKPOINT_PERIOD_MINUTES", "0", "TRAIN.CHECKPOINT_ASYNC", "False"]
    with _quietly(config, [*words, *own]) as (loaded, folder):
        if start is not None:
            link = folder / "checkpoints" / start.name
            link.parent.mkdir()
            link.symlink_to(start.resolve())
        launch(loaded.cfg, _take_steps, loaded, end, threads)
        saved = next(
            path for position in _spellings(folder, end) if (path := checkpoint_path(folder, position)).is_file()
        )
        return Recomputed(read_checkpoint(saved), json_lines(folder / "metrics.jsonl"))


def _spellings(folder: Path, end: Position) -> Iterator[Position]:
    """The names of the end: after the last step of an epoch, or after the epoch."""
    yield end
    steps = [
        path.stem.rpartition("_step_")[2] for path in folder.glob(f"checkpoints/*_{end.epoch - 1:05d}_step_*.pyth")
    ]
    yield Position(end.epoch - 1, max(map(int, steps), default=0))


def _take_steps(processes: Processes, loaded: LoadedConfig, end: Position, threads: int) -> None:
    """Train up to `end` and save there, as a signal would; then validate if that is the end of an epoch."""
    this_run = start_run(loaded, processes)
    training = prepare(this_run, load_lists(loaded.cfg), num_threads=threads)
    first, last_epoch = training.first, end.epoch - (0 if end.step else 1)
    target = end.epoch * len(training.loader) + end.step

    def flags() -> list[int]:
        if training.progress.step + 1 >= target:
            this_run.stop.signal = signal.SIGTERM
        return [*this_run.stop.votes(), 0]

    training.take_step.flags = flags
    with training.writing(), contextlib.suppress(Stopped):
        for epoch in range(first.epoch, last_epoch + 1):
            train_epoch(training, epoch, done_steps=first.step if epoch == first.epoch else 0)
    training.loader.close()
    this_run.stop.signal = 0
    if not end.step:
        validate(training, last_epoch)
    this_run.events.close()
