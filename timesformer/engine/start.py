"""Where training begins: from scratch, from weights (initialise or fine-tune), or where a run stopped (resume)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timesformer.distributed import group as distributed
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.checkpoint import Position
from timesformer.engine.load_weights import load_and_report
from timesformer.engine.setup import Run
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import CheckpointError
from timesformer.utils.logging import get_logger
from timesformer.weights.layouts import stored_settings
from timesformer.weights.sources import is_hub_name

log = get_logger(__name__)

# Multiply-accumulates of a forward pass that keep a thread busy. Measured on two cores of an AMD EPYC: two threads take
# 0.75 of the time of one, and 1.23 of its CPU time, where a pass has 0.9 G; 0.6 and 1.10 where it has 3.7 G.
WORK_PER_THREAD = 1_500_000_000


@dataclass(frozen=True)
class Start:
    """The beginning of a training whose model has its weights already.

    Attributes:
        position: where the first step is taken.
        path: of the checkpoint that the rest of the state comes from; empty without one.
        content: of that checkpoint.
        best_is_there: whether the best checkpoint so far is in OUTPUT_DIR.
        same_batch_size: whether TRAIN.BATCH_SIZE is the one of that checkpoint.
        num_threads: CPU threads that its steps were computed with, where as many processes compute now; else 0.
    """

    position: Position = Position()  # noqa: RUF009 (a tuple)
    path: str = ""
    content: Mapping[str, Any] | None = None
    best_is_there: bool = False
    same_batch_size: bool = False
    num_threads: int = 0


def resumes(run: Run) -> bool:
    """Whether `find_start` loads every weight, or fails."""
    train = run.cfg.TRAIN
    from_file = bool(train.CHECKPOINT_FILE_PATH) and not train.FINETUNE
    return from_file or checkpoints.newest_checkpoint(run.cfg.OUTPUT_DIR) is not None


def find_start(run: Run, model: nn.Module, *, class_names: Sequence[str], dataset: Mapping[str, str]) -> Start:
    """Load what the configuration asks to start from into the model, and say which of the three it is.

    - resume: `TRAIN.AUTO_RESUME` and a checkpoint in OUTPUT_DIR, or `TRAIN.CHECKPOINT_FILE_PATH`;
    - fine-tune: `TRAIN.CHECKPOINT_FILE_PATH` with `TRAIN.FINETUNE`;
    - initialise: `MODEL.WEIGHTS`.

    Args:
        run: the run.
        model: gets the weights; it may be on torch's meta device when `resumes(run)`.
        class_names: of the data, empty when unknown.
        dataset: fingerprint of each list (train, val).

    Raises:
        CheckpointError: an earlier run is in OUTPUT_DIR and AUTO_RESUME is off, a checkpoint is damaged, finished or of
            another run, or weights do not fit.
    """
    cfg = run.cfg
    auto_resume, finetune = cfg.TRAIN.AUTO_RESUME, cfg.TRAIN.FINETUNE
    path, pretrained = cfg.TRAIN.CHECKPOINT_FILE_PATH, cfg.MODEL.WEIGHTS
    newest = _newest_for_all(run)
    if newest is not None and not auto_resume:
        raise CheckpointError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds a run already ({newest[0].name}). To resume it add "
            "TRAIN.AUTO_RESUME True; to train from scratch set another OUTPUT_DIR or delete that folder."
        )
    if newest is not None:
        if path or pretrained:
            log.info("%s is not loaded: the run in OUTPUT_DIR is resumed", path or pretrained)
        path, content = newest
        checkpoints.check_same_run(content, path, cfg, dataset)
        return _resume(run, model, str(path), content, dataset, why="TRAIN.AUTO_RESUME")
    if path and finetune:
        log.info("fine-tuning: a new run from the weights of %s (TRAIN.CHECKPOINT_FILE_PATH, TRAIN.FINETUNE)", path)
        if pretrained:
            log.info("MODEL.WEIGHTS %s is not loaded: the weights of that file replace it", pretrained)
        load_and_report(run, model, path, class_names)
        return Start()
    if path:
        if is_hub_name(path) or Path(path).is_dir():
            raise CheckpointError(f"{path} holds weights only, not a run to resume. Add: TRAIN.FINETUNE True")
        content = distributed.on_all_processes(lambda: checkpoints.read_checkpoint(path))
        return _resume_from_file(run, model, path, content, dataset)
    if pretrained:
        log.info("initialising: a new run from the weights of %s (MODEL.WEIGHTS)", pretrained)
        load_and_report(run, model, pretrained, class_names)
        return Start()
    log.info("training from scratch (no pretrained weights)")
    return Start()


def _newest_for_all(run: Run) -> tuple[Any, dict[str, Any]] | None:
    """The newest readable checkpoint of OUTPUT_DIR, the same one on every process."""
    folder, is_first = run.cfg.OUTPUT_DIR, run.processes.rank == 0
    found = distributed.on_all_processes(
        lambda: checkpoints.read_newest(folder, rename=run.events.is_main) if is_first else None
    )
    path = distributed.all_gather(found and found[0])[0]
    return path and distributed.on_all_processes(lambda: found or (path, checkpoints.read_checkpoint(path)))


def _resume_from_file(
    run: Run, model: nn.Module, path: str, content: dict[str, Any], dataset: Mapping[str, str]
) -> Start:
    """Resume from a checkpoint that the user names; its recipe may differ, which is logged."""
    cfg, position = run.cfg, checkpoints.position_of(content)
    if cfg.TRAIN.CHECKPOINT_EPOCH_RESET:
        _load(run, model, path, content, dataset)
        log.info("weights and optimiser of %s, from epoch 0 (TRAIN.CHECKPOINT_EPOCH_RESET)", path)
        return Start(path=path, content=content)
    if position.step:  # steps of an epoch count only for the same lists, batch and seed
        checkpoints.check_same_run(content, path, cfg, dataset)
    elif lines := checkpoints.differences(content, cfg, dataset):
        run.warn_once([f"{path} was trained otherwise:\n" + "\n".join(lines)])
    if position.epoch >= cfg.SOLVER.MAX_EPOCH:
        raise CheckpointError(
            f"{path} has {position.epoch} epochs behind it and SOLVER.MAX_EPOCH is {cfg.SOLVER.MAX_EPOCH}: nothing is "
            f"left to train. To start a new training from its weights add TRAIN.FINETUNE True; to train on, "
            f"SOLVER.MAX_EPOCH {2 * position.epoch}; to test it, TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {path}"
        )
    return _resume(run, model, path, content, dataset, why="TRAIN.CHECKPOINT_FILE_PATH")


def _resume(
    run: Run, model: nn.Module, path: str, content: dict[str, Any], dataset: Mapping[str, str], *, why: str
) -> Start:
    _load(run, model, path, content, dataset)
    position, before = checkpoints.position_of(content), content.get("num_processes")
    log.info("resuming from %s, after %s (%s)", path, position, why)
    if before not in (None, run.processes.world_size):
        log.info(
            "it ran on %s process(es), now on %d: the same clips in the same steps, equal up to rounding; "
            "only dropout and stochastic depth are drawn otherwise",
            before,
            run.processes.world_size,
        )
    if (precision := content.get("precision")) not in (None, run.precision):
        log.info("it computed in %s, now in %s; to keep it: PRECISION %s", precision, run.precision, precision)
    return Start(
        position,
        path,
        content,
        best_is_there=checkpoints.best_path(run.cfg.OUTPUT_DIR).is_file(),
        same_batch_size=stored_settings(content).get("TRAIN.BATCH_SIZE") == run.cfg.TRAIN.BATCH_SIZE,
        num_threads=content.get("num_threads", 0) if before == run.processes.world_size else 0,
    )


def step_threads(before: int, work: int, environ: Mapping[str, str]) -> int:
    """CPU threads that training steps are computed with: the last bits of a run's numbers depend on it.

    Args:
        before: that of the run that is resumed; 0 for a new one.
        work: multiply-accumulates of a forward pass.
        environ: where OMP_NUM_THREADS decides.
    """
    share = torch.get_num_threads()
    if before and before != share and ("OMP_NUM_THREADS" in environ or before > available_cpus()):
        log.info("it computed with %d CPU thread(s), now with %d: equal up to rounding", before, share)
        return share
    if before or "OMP_NUM_THREADS" in environ:
        return before or share
    busy = max(1, min(share, work // WORK_PER_THREAD))
    if busy < share:
        log.info("training steps are small: they take %d of %d CPU threads (OMP_NUM_THREADS changes that)", busy, share)
    return busy


def _load(run: Run, model: nn.Module, path: str, content: Mapping[str, Any], dataset: Mapping[str, str]) -> None:
    try:
        model.load_state_dict(content["model_state"], assign=next(model.parameters()).is_meta)
    except RuntimeError as error:
        differ = "\n".join(checkpoints.differences(content, run.cfg, dataset)) or f"  {error}"
        raise CheckpointError(
            f"{path} is of another model, and a run resumes only with the same one. What differs:\n{differ}\n"
            "Set these as they were there, or start a new training from what fits of its weights: TRAIN.FINETUNE True"
        ) from error
