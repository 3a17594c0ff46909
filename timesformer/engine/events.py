"""What a run writes while it trains: progress bar or plain lines, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplejson
from tqdm import tqdm

from timesformer.utils.files import json_lines
from timesformer.utils.logging import get_logger

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

log = get_logger(__name__)

SETTLED_STEPS = 50  # after which a run reports how long it waits for data
SLOW_DATA_ABOVE = 0.2  # share of a step spent waiting for data


class RunEvents:
    """Scalars, pictures and progress of one run; silent on every process but the first.

    Args:
        output_dir: gets `metrics.jsonl`, one JSON object a line with `kind` (train, val or test) and `epoch`.
        tensorboard_dir: folder of TensorBoard events, None for none.
        is_main: whether this process writes.
    """

    def __init__(self, output_dir: Path, *, tensorboard_dir: Path | None, is_main: bool) -> None:
        self.is_main = is_main
        self.path = output_dir / "metrics.jsonl"
        self._board_dir = tensorboard_dir if is_main else None
        self._purge_step: int | None = None
        self._unwritten: list[str] = []  # rows that wait for room on the disk

    @cached_property
    def board(self) -> Any:
        """TensorBoard's writer, made when it is first needed; None without TensorBoard."""
        if self._board_dir is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._board_dir), purge_step=self._purge_step)

    def record(self, kind: str, *, epoch: float, step: int, **values: float) -> None:
        """Append one row to metrics.jsonl and the values to TensorBoard."""
        if not self.is_main:
            return
        row = {"kind": kind, "epoch": round(epoch, 4), "step": step, **values}
        line = simplejson.dumps(row, ignore_nan=True)
        if kind != "test" or json.loads(line) not in self.history():  # the same test again is no news
            self._write(line)
        self._show(lambda board: [board.add_scalar(f"{kind}/{name}", value, step) for name, value in values.items()])

    def _write(self, line: str) -> None:
        """Append a row, and those that could not be written before; a full disk ends no training."""
        lines = [*self._unwritten, line]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                    file.write(b"\n")  # half a line that a crash has left
                file.write("".join(f"{each}\n" for each in lines).encode())
        except OSError as error:
            if not self._unwritten:
                log.error("%s cannot be written (%s); its rows are kept and written later", self.path, error.strerror)
            self._unwritten = lines
        else:
            self._unwritten = []

    def _show(self, add: Callable[[Any], object]) -> None:
        """Add to TensorBoard, if there is one; when its files cannot be written there is none from then on."""
        if self.board is None:
            return
        try:
            add(self.board)
        except (OSError, ValueError) as error:  # its thread keeps the error for the next call
            log.error("TensorBoard is switched off: %s", error)
            self.board = self._board_dir = None

    def figure(self, name: str, draw: Callable[[], Figure], step: int) -> None:
        """Show the matplotlib figure that `draw` makes in TensorBoard."""
        self._show(lambda board: board.add_figure(name, draw(), step))

    def clips(self, name: str, clips: np.ndarray, step: int) -> None:
        """Show clips, uint8 (B, C, T, H, W), in TensorBoard: a row per clip, a column per frame."""
        b, c, t, h, w = clips.shape
        self._show(lambda board: board.add_image(name, clips.transpose(1, 0, 3, 2, 4).reshape(c, b * h, t * w), step))

    def history(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; a line that a crash left half written is no row."""
        return [row for row in json_lines(self.path) if {"kind", "epoch", "step"} <= row.keys()]

    def start_at(self, *, epoch: int, step: int) -> None:
        """Drop what an earlier start wrote after `step` optimiser steps, and what its tests wrote.

        Args:
            epoch: finished epochs; the validation of a later one is dropped even at the same step.
            step: optimiser steps of the run.
        """
        self._purge_step = step + 1
        if self.is_main and self.path.exists():
            rows = (row for row in self.history() if row["step"] <= step)
            kept = [row for row in rows if row["kind"] == "train" or (row["kind"] == "val" and row["epoch"] <= epoch)]
            temporary = self.path.with_suffix(".writing")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
            temporary.replace(self.path)

    def close(self) -> None:
        """Flush TensorBoard, and write what waits for room on the disk."""
        if self._unwritten:
            self._write(self._unwritten.pop())
        if "board" in self.__dict__:
            self._show(lambda board: board.close())


def data_advice(wait_share: float, *, num_workers: int, num_cpus: int, cached: bool) -> str:
    """One line: how much of a step is data loading and, from a fifth on, what makes it faster.

    Args:
        wait_share: share of the time that a step waits for its clips, 0..1.
        num_workers: loader processes of this training process.
        num_cpus: CPUs that they may use.
        cached: decoded frames are kept (DATA_LOADER.CACHE).
    """
    message = f"data loading takes {wait_share:.0%} of the step time"
    if wait_share < SLOW_DATA_ABOVE:
        return message
    changes = []
    if num_workers < num_cpus - 1:
        changes.append(f"DATA_LOADER.NUM_WORKERS {num_cpus - 1} (now {num_workers})")
    if cached:
        changes.append("fewer augmentations")
    else:
        changes.append("DATA_LOADER.CACHE memory or disk (small datasets)")
        changes.append("smaller video files (short side 256, a keyframe every 12 frames)")
    return f"{message}; to speed it up: {', or '.join(changes)}"


class Progress:
    """Progress of training: a bar on a terminal, a plain line each logging step elsewhere.

    It also measures, between two calls of `show`, the clips per second and the share of time spent waiting for data.

    Args:
        total_steps: of the run.
        done_steps: of them before this process.
        is_main: whether this process shows it.
        filling: steps that also fill the cache of frames, whose waits say nothing of those that follow.
    """

    def __init__(self, *, total_steps: int, done_steps: int, is_main: bool, filling: int = 0) -> None:
        self.total_steps = total_steps
        self.step = self.first_step = done_steps
        self.started = self.since = time.perf_counter()
        self.waited = 0.0
        self.clips = 0
        self._settled: list[tuple[float, float]] | None = None  # seconds, and those of them spent waiting
        self._reported = False
        self._first_settled = done_steps + filling
        show_bar = is_main and sys.stderr.isatty()
        self.bar = tqdm(
            total=total_steps,
            initial=done_steps,
            disable=not show_bar,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
        )
        self.plain = is_main and not show_bar

    def advance(self, *, clips: int, waited_sec: float) -> None:
        """Count one step."""
        self.step += 1
        self.clips += clips
        self.waited += waited_sec
        self.bar.update()

    def rates(self) -> dict[str, float]:
        """`clips_per_sec` and `data_wait` (share of time, 0..1) since the last call."""
        now = time.perf_counter()
        passed = max(now - self.since, 1e-9)
        rates = {"clips_per_sec": self.clips / passed, "data_wait": self.waited / passed}
        if self._settled is not None and self.clips:
            self._settled.append((passed, self.waited))
        elif self.clips and self.step >= self._first_settled:  # what comes first, with all starting up, says little
            self._settled = []
        self.since, self.waited, self.clips = now, 0.0, 0
        return rates

    def settled_wait_share(self) -> float | None:
        """Share of the time spent waiting for data since the first call of `rates`; once, after 50 steps."""
        if not self._settled or self.step - self.first_step < SETTLED_STEPS or self._reported:
            return None
        self._reported = True
        passed, waited = (sum(column) for column in zip(*self._settled, strict=True))
        return waited / passed

    def show(self, epoch: float, values: Mapping[str, float]) -> None:
        """Show the values of a logging step with the time that is left."""
        parts = [f"loss {values['loss']:.3f}"]
        if math.isfinite(values.get("top1", math.nan)):
            parts.append(f"top1 {values['top1']:.1f}%")
        parts += [f"lr {values['lr']:.2g}", f"{values['clips_per_sec']:.0f} clips/s"]
        rest = f"data {100 * values['data_wait']:.0f}%  ETA {self.eta()}"
        # Under a bar the line goes to log.txt only.
        level = logging.INFO if self.plain else logging.DEBUG
        log.log(level, "epoch %5.2f  %s  %s", epoch, "  ".join(parts), rest)
        if not self.plain:
            self.bar.set_description_str(f"epoch {epoch:.2f}", refresh=False)
            self.bar.set_postfix_str("  ".join([*parts, self.eta()]))

    def eta(self) -> str:
        """Time left at the mean speed so far, evaluation included."""
        done = self.step - self.first_step
        left = (time.perf_counter() - self.started) / max(done, 1) * (self.total_steps - self.step)
        hours, seconds = divmod(int(left), 3600)
        return f"{hours}:{seconds // 60:02d}:{seconds % 60:02d}" if hours else f"{seconds // 60}:{seconds % 60:02d}"

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
