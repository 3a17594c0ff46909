"""Clips that could not be read: counted, listed in failed_clips.csv, and a reason to stop when there are too many."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from timesformer.datasets.video_dataset import Failure
from timesformer.evaluation.report import write_failures
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

JUDGE_AFTER_CLIPS = 100


class FailureLog:
    """Failures of the training clips, epoch by epoch.

    Args:
        max_fraction: largest share of clips of an epoch that may fail.
        path: csv file that gets one row (path, list line, cause) per video that failed; None: no file.
        keep: keep the rows that the file has from before.
    """

    def __init__(self, *, max_fraction: float, path: Path | None, keep: bool = False) -> None:
        self.max_fraction = max_fraction
        self.path = path
        self.known: dict[str, Failure] = {}
        if keep and path is not None:
            self.known = {failure.path: failure for failure in _read(path)}
        self.start_epoch()

    def start_epoch(self) -> None:
        """Start the count of an epoch."""
        self.tried = self.failed = 0

    def add(self, failures: Sequence[Failure], *, requested: Sequence[int]) -> None:
        """Count the clips of a step that failed; replacements that failed too are listed, but count no clip.

        Args:
            failures: of the step, replacements included.
            requested: dataset indices of the clips of the steps.

        Raises:
            UserError: after 100 clips, when the failed share is above the limit.
        """
        self.tried += len(requested)
        indices = {failure.index for failure in failures}
        self.failed += sum(index in indices for index in requested)
        for failure in failures:
            if failure.path not in self.known:
                self.known[failure.path] = failure
                log.warning("clip left out: %s", failure)
                if self.path is not None:
                    self._write(self.path)
        if self.tried >= JUDGE_AFTER_CLIPS:
            self.judge()

    def _write(self, path: Path) -> None:
        try:
            write_failures(path, list(self.known.values()))
        except OSError as error:  # a full disk ends no training; the log has them too
            log.error("%s cannot be written: %s", path, error.strerror)

    def judge(self) -> None:
        """Stop when too much of the epoch so far has failed.

        Raises:
            UserError: naming the first ten videos.
        """
        if self.tried and self.failed > self.max_fraction * self.tried:
            shown = "\n".join(f"  {failure}" for failure in list(self.known.values())[:10])
            raise UserError(
                f"{self.failed} of {self.tried} clips could not be read, more than DATA.MAX_FAILED_FRACTION "
                f"{self.max_fraction:g}. First ones:\n{shown}\nMend or remove them, or raise DATA.MAX_FAILED_FRACTION."
            )


def _read(path: Path) -> list[Failure]:
    """The rows of an earlier start; those that are damaged are left out, and found again when they are read."""
    try:
        with path.open(newline="", errors="surrogateescape") as file:
            rows = [*csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, csv.Error) as error:
        log.warning("%s is damaged and is written from scratch: %s", path, error)
        return []
    whole = [row for row in rows if all(row.get(name) is not None for name in ("path", "line", "cause"))]
    if len(whole) < len(rows):
        log.warning("%s: %d damaged rows are left out", path, len(rows) - len(whole))
    return [Failure(-1, row["path"], row["line"], row["cause"]) for row in whole]
