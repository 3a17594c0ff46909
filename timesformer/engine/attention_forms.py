"""Which form of attention a run's GPU computes with: measured at the first start, kept in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from timesformer.distributed import group as distributed
from timesformer.engine.setup import Run
from timesformer.models import gpu_kernels
from timesformer.models.gpu_kernels import Shape
from timesformer.utils.compute import autocast, eval_mode
from timesformer.utils.files import write_whole
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

FILE = "attention.json"


def choose_forms(run: Run, model: nn.Module, *, clips: int) -> None:
    """Compute with the forms of the run's record, and measure those that it does not have; collective, on GPUs.

    A resumed run, and the test of a run, so compute as its training did.

    Args:
        run: the run; its first process measures, for all.
        model: on the run's device, not compiled yet.
        clips: of a pass.
    """
    if run.device.type != "cuda":
        return
    path, is_main = run.output_dir / FILE, run.processes.rank == 0
    before = gpu_kernels.noted()
    clip = torch.zeros(1, *model.input_shape, device=run.device)  # type: ignore[misc]
    with torch.no_grad(), eval_mode(model), autocast(run.device, run.dtype):
        model(clip)
    shapes = {shape: rows for shape, rows in gpu_kernels.noted().items() if shape not in before}
    forms = read(path) if is_main else {}
    missing = sorted(shapes.keys() - forms.keys()) if is_main else []
    for shape in missing:
        forms[shape] = gpu_kernels.choose(shape, clips * shapes[shape], run.device)
        log.info("attention among %d tokens: the %s form is the fastest on this GPU", shape.length, forms[shape])
    gpu_kernels.use(forms := distributed.all_gather(forms)[0])
    if missing and path.parent.is_dir():  # a check makes no folder
        write(path, forms)


def read(path: Path) -> dict[Shape, str]:
    """The forms of a record, by shape; empty without one, and with a warning where it is damaged."""
    if not path.is_file():
        return {}
    try:
        return {Shape(*entry["shape"]): entry["form"] for entry in json.loads(path.read_text())}
    except (ValueError, LookupError, TypeError):
        log.warning("%s is damaged, so the forms of attention are measured again: other rounding is possible", path)
        return {}


def write(path: Path, forms: dict[Shape, str]) -> None:
    """Keep the forms, by shape."""
    entries = [{"shape": list(shape), "form": form} for shape, form in sorted(forms.items())]
    write_whole(path, f"{json.dumps(entries, indent=1)}\n".encode())
