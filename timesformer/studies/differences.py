"""Two checkpoints, or two tables of predictions: bit for bit, or how far apart on another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timesformer.evaluation.report import read_predictions
from timesformer.utils.console import count
from timesformer.utils.env import collect_versions

OK, NEAR, DIFFERS, SKIPPED, FAILED = "ok", "within tolerance", "DIFFERS", "not checked", "FAILED"
Outcome = tuple[str, str]  # one of these, and in words what was found

SCORE_TOLERANCE = 0.02  # of a score, where the arithmetic is another
CHANGE_TOLERANCE = 0.5  # of the norm of a tensor's change over a stretch, likewise
_PARTS = ("model_state", "ema_state", "optimizer_state", "scaler_state")
_MAX_SHOWN = 5


def other_machine(there: Mapping[str, Any], checkpoint: Mapping[str, Any] | None = None) -> list[str]:
    """Why the last bits may be others here: one text for each cause.

    Args:
        there: what `collect_versions` gave to the run.
        checkpoint: of the run, for the number of processes.
    """
    here = collect_versions()
    pairs = {
        "timesformer": [each.get("timesformer") for each in (there, here)],
        "torch": [each.get("libraries", {}).get("torch") for each in (there, here)],
        "FFmpeg": [each.get("ffmpeg") for each in (there, here)],
        "CPU": [each.get("cpu", "unknown") for each in (there, here)],
        "GPUs": [" ".join(each.get("devices", [])) or "none" for each in (there, here)],
    }
    reasons = [f"{name} {a} there, {b} here" for name, (a, b) in pairs.items() if a != b]
    if here["devices"] and not reasons:
        reasons.append("GPUs add in another order each time")
    if (processes := (checkpoint or {}).get("num_processes", 1)) != 1:
        reasons.append(f"{processes} processes there")
    return reasons


def compare_weights(
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    reasons: Sequence[str],
    *,
    where: str,
) -> Outcome:
    """The tensors of a checkpoint against computed ones.

    Args:
        there: the checkpoint.
        now: what it should be.
        before: the checkpoint where the stretch starts, None at the start.
        reasons: of `other_machine`; without any, one bit is a difference.
        where: what `now` is, for messages.
    """
    tensors, computed = (dict(_tensors({part: each.get(part) for part in _PARTS})) for each in (there, now))
    if tensors.keys() != computed.keys():
        return (
            DIFFERS,
            f"other tensors than {where}: {', '.join(sorted(tensors.keys() ^ computed.keys())[:_MAX_SHOWN])}",
        )
    wrong = [name for name, tensor in tensors.items() if not _identical(tensor, computed[name])]
    if not wrong:
        return OK, f"{count(len(tensors), 'tensor')} bit for bit as {where}"
    start = dict(_tensors({part: before.get(part) for part in _PARTS})) if before else {}
    if reasons and all(_near(tensors[name], computed[name], start.get(name)) for name in wrong):
        return (
            NEAR,
            f"{len(wrong)} of {count(len(tensors), 'tensor')} differ slightly from {where} ({'; '.join(reasons)})",
        )
    shown = [f"  {name}: {_describe(tensors[name], computed[name])}" for name in wrong[:_MAX_SHOWN]]
    more = [f"  and {len(wrong) - _MAX_SHOWN} more tensors"] if len(wrong) > _MAX_SHOWN else []
    note = [f"  the arithmetic is another ({'; '.join(reasons)}), but does not explain this much"] if reasons else []
    return DIFFERS, "\n".join(
        [f"{len(wrong)} of {count(len(tensors), 'tensor')} are not those of {where}:", *shown, *more, *note]
    )


def compare_predictions(there: Path, now: Path, reasons: Sequence[str]) -> Outcome:
    """Two files predictions.csv: paths, labels and scores.

    Raises:
        UserError: a file is damaged.
    """
    texts = [path.read_bytes() for path in (there, now)]
    if texts[0] == texts[1]:
        return OK, f"{count(texts[0].count(bytes([10])) - 1, 'prediction')} to the last digit as a test now"
    (records, before), (others, after) = (read_predictions(path, multi_label=True) for path in (there, now))
    keys = [[(r.path, r.label, r.subject, r.start_sec, r.end_sec) for r in rows] for rows in (records, others)]
    if len(keys[0]) != len(keys[1]) or before.scores.shape != after.scores.shape:
        return DIFFERS, f"{before.scores.shape[0]} predictions, a test now has {after.scores.shape[0]}"
    gaps = np.abs(before.scores - after.scores).max(axis=1)
    rows = [index for index in range(len(gaps)) if keys[0][index] != keys[1][index] or gaps[index] > 0]
    if reasons and keys[0] == keys[1] and gaps.max() <= SCORE_TOLERANCE:
        return NEAR, f"scores differ by up to {gaps.max():.2g} from a test now ({'; '.join(reasons)})"
    shown = [
        f"  line {row + 2}: {records[row].path}"
        + (f", label {records[row].label}, now {others[row].label}" if keys[0][row] != keys[1][row] else "")
        + (f", a score differs by {gaps[row]:.2g}" if gaps[row] else "")
        for row in rows[:_MAX_SHOWN]
    ]
    number = f"{len(rows)} of {count(len(gaps), 'prediction')} are" if rows else "other columns are"
    return DIFFERS, "\n".join([f"{number} not those of a test now:", *shown])


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dictionaries and lists, with where they are; numbers count as tensors."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{name}[{index}]")
    elif isinstance(value, (int, float)):
        yield name, torch.tensor(value, dtype=torch.float64)


def _identical(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a, b) or torch.allclose(a.double(), b.double(), rtol=0, atol=0, equal_nan=True)


def _near(a: Tensor, b: Tensor, start: Tensor | None) -> bool:
    """Whether two results of one stretch can be of other arithmetic: neither is further apart than both have moved."""
    if a.shape != b.shape or start is None or start.shape != a.shape:
        return False
    gap, change = (a.double() - b.double()).abs(), (b.double() - start.double()).abs()
    return bool(gap.norm() <= CHANGE_TOLERANCE * change.norm() and gap.max() <= 2 * change.max())


def _describe(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape:
        return f"shape {tuple(a.shape)}, computed {tuple(b.shape)}"
    gap = (a.double() - b.double()).abs()
    return f"{int((gap > 0).sum())} of {count(a.numel(), 'value')} differ, by up to {gap.max():.3g}"
