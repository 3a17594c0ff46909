"""Write checkpoints: whole or not at all, while training continues, and only as many as are wanted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import torch

from timesformer.engine.checkpoint import BEST_NAME, Position, checkpoint_path, list_checkpoints
from timesformer.utils.errors import CheckpointError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)


@dataclass(eq=False)
class CheckpointWriter:
    """Writes the checkpoints of one run; use it as a context manager, which waits for the last one.

    A write that fails (a full disk, say) is an error in the log, leaves the earlier checkpoints as they are, and does
    not end the training: the next one may succeed. Only when the run ends on a failed write does it raise.
    """

    output_dir: Path  # the files go to its folder `checkpoints`
    _: KW_ONLY
    period_steps: int = 0  # a checkpoint is due every so many optimiser steps; 0: never
    period_minutes: float = 0.0  # a checkpoint is overdue when the last is so old; 0: never
    keep: int = 0  # newest checkpoints that stay, besides the best one; 0: all
    in_background: bool = False  # copy the state and write it in a thread
    about: Mapping[str, Any] = field(default_factory=dict)  # what every checkpoint holds besides the state

    def __post_init__(self) -> None:
        self.last_written = time.monotonic()
        self._thread: Thread | None = None
        self._error: CheckpointError | None = None

    def __enter__(self) -> CheckpointWriter:
        for leftover in (self.output_dir / "checkpoints").glob("*.writing"):  # of a run that was killed
            leftover.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.wait()
        if kind is None and self._error is not None:
            raise self._error

    def due(self, step: int) -> bool:
        """Whether the period in steps ends with optimiser step `step` of the run (counted from 1)."""
        return self.period_steps > 0 and step % self.period_steps == 0

    def overdue(self) -> bool:
        """Whether the last checkpoint (or the start of the run) is older than the period in minutes."""
        return 0 < 60 * self.period_minutes <= time.monotonic() - self.last_written

    def write(self, state: Mapping[str, Any], position: Position, *, is_best: bool = False) -> None:
        """Write a checkpoint, and make it the best one too with `is_best`; waits for the one before it."""
        self.wait()
        self.last_written = time.monotonic()
        content = {**self.about, **state}
        if not self.in_background:
            self._write(content, position, is_best)
            return
        self._thread = Thread(target=self._write, args=(_snapshot(content), position, is_best), name="checkpoint")
        self._thread.start()

    def wait(self) -> CheckpointError | None:
        """Until the checkpoint under way is on the disk; the error when the last one could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._error

    def _write(self, content: Mapping[str, Any], position: Position, is_best: bool) -> None:
        path = checkpoint_path(self.output_dir, position)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(content, path, is_best=is_best)
            if self.keep:
                for old in list_checkpoints(self.output_dir)[self.keep :]:
                    old.unlink()
            self._error = None
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            free = shutil.disk_usage(path.parent if path.parent.is_dir() else Path.cwd()).free
            cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            self._error = CheckpointError(
                f"{path}: could not be written ({cause}; {free / 2**20:,.0f} MiB free there). The earlier "
                "checkpoints are unharmed. Make room (TRAIN.CHECKPOINT_KEEP 1 needs the least); TRAIN.AUTO_RESUME True "
                "resumes from the last one"
            )
            log.error("%s", self._error)


def write_whole(content: Mapping[str, Any], path: Path, *, is_best: bool = False) -> None:
    """Write a file that is there in full, on the disk, or not at all; with `is_best` first under the best one's name.

    Raises:
        OSError, RuntimeError: it cannot be written; an earlier file of that name is untouched.
    """
    temporary = path.with_suffix(".writing")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if is_best:  # before its own name, so that no checkpoint can tell of a best one that is not there
            _link(temporary, path.with_name(BEST_NAME))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _link(path: Path, name: Path) -> None:
    """Make `name` the same file as `path`, at once; a copy where the file system has no links."""
    temporary = name.with_suffix(".writing")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(name)


def _sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _snapshot(value: Any) -> Any:
    """A copy on the CPU that training does not change any more."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _snapshot(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_snapshot(item) for item in value)
    return value
