"""Which forms of operations a run computes with: measured at its first start, kept in its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from timesformer.distributed import group as distributed
from timesformer.models import cpu_kernels, gpu_kernels
from timesformer.models.contract import VideoModel
from timesformer.models.kernels import CPU, GPU, record_of, use_kernels
from timesformer.models.summary import without_values
from timesformer.utils.compute import autocast, eval_mode
from timesformer.utils.logging import get_logger
from timesformer.utils.paths import user_cache

log = get_logger(__name__)


def choose_kernels(
    model: VideoModel,
    *,
    setting: str,
    device: torch.device,
    dtype: torch.dtype | None,
    clips: int,
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Compute with the forms of the record, and measure what it lacks; collective. Returns the record for checkpoints.

    A resumed run, and the test of a run, so compute as its training did. A CPU's forms are measured for a new run
    only; a GPU's for any shape that the record lacks.

    Args:
        model: on `device`, not compiled yet.
        setting: MODEL.KERNELS.
        device: of the run, whose first process measures, for all.
        dtype: of autocast; None: fp32.
        clips: of a pass.
        recorded: the content of the checkpoint that the run goes on from, or what is known of it; None: a new run.
    """
    record = record_of(recorded or {})
    if setting == "torch":
        use_kernels(None)
        return record
    if device.type == "cpu":
        if recorded is None:
            record[CPU] = _of_first(lambda: _measured_on_cpu(model, dtype, clips))
        if forms := record[CPU]:
            how_chosen = "measured" if recorded is None else "as the run chose before"
            log.info("CPU kernels, %s: own form of %d of %d operations", how_chosen, sum(forms.values()), len(forms))
            names = cpu_kernels.NAMES
            log.debug("%s", ", ".join(f"{name}: {names[is_own]}" for name, is_own in forms.items()))
    if device.type == "cuda":
        shapes = _shapes_on_gpu(model, device, dtype)
        record[GPU] |= _of_first(lambda: _measured_on_gpu(shapes, device, clips, known=record[GPU]))
    use_kernels(record)
    return record


def _of_first(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the first process measures, on all of them."""
    found: dict[str, Any] = distributed.all_gather(measure() if distributed.rank() == 0 else {})[0]
    return found


def _measured_on_cpu(model: VideoModel, dtype: torch.dtype | None, clips: int) -> dict[str, bool]:
    store = user_cache() / "cpu_kernels.json"
    how: Any = {"clips": clips, "dtype": dtype or torch.float32, "store": store}
    return cpu_kernels.measured_forms(without_values(model), model.input_shape, **how)


def _shapes_on_gpu(model: VideoModel, device: torch.device, dtype: torch.dtype | None) -> dict[gpu_kernels.Shape, int]:
    """The rows of a clip, by the shape of an attention for which there are several forms."""
    before = gpu_kernels.noted()
    clip = torch.zeros(1, *model.input_shape, device=device)
    with torch.no_grad(), eval_mode(model), autocast(device, dtype):
        model(clip)
    return {shape: rows for shape, rows in gpu_kernels.noted().items() if shape not in before}


def _measured_on_gpu(
    shapes: Mapping[gpu_kernels.Shape, int], device: torch.device, clips: int, *, known: Mapping[str, str]
) -> dict[str, str]:
    found = {}
    for shape in sorted(shapes):
        if (name := gpu_kernels.key(*shape)) not in known:
            found[name] = gpu_kernels.choose(shape, clips * shapes[shape], device)
            log.info("%s: the %s form is the fastest on this GPU", name, found[name])
    return found
