"""The parts of a training: built from the configuration, and put back as a checkpoint has them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from timesformer.datasets.build import build_eval_loader, build_mixer, build_train_loader, clips_per_pass, loss_weights
from timesformer.datasets.loader import EvalLoader, TrainLoader
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import parallelize
from timesformer.distributed.stop import stopped
from timesformer.engine.checkpoint import Position
from timesformer.engine.checkpoint_writer import CheckpointWriter
from timesformer.engine.compiling import compile_model
from timesformer.engine.describe import describe_model
from timesformer.engine.events import Progress
from timesformer.engine.failures import FailureLog
from timesformer.engine.kernels import choose_kernels
from timesformer.engine.overfitting import TrainingAccuracy
from timesformer.engine.setup import Run, warn_of_unused_keys, write_provenance
from timesformer.engine.start import Start, find_start, resumes, step_threads
from timesformer.engine.state import TrainingState, decisive_metric, description
from timesformer.engine.step import TrainStep
from timesformer.models.build import build_model
from timesformer.models.contract import VideoModel
from timesformer.optim.build import build_ema, build_optimizer, build_schedule, describe_rate, freeze_parameters
from timesformer.optim.freezing import set_training_mode
from timesformer.utils.compute import cpu_threads
from timesformer.utils.errors import CheckpointError, Stopped, UserError
from timesformer.utils.logging import get_logger
from timesformer.utils.memory import PassSize
from timesformer.video.clip_spec import ClipSpec, Views

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

log = get_logger(__name__)


@dataclass
class Training:
    """A training that is ready for its next step."""

    run: Run
    videos: VideoList
    val_videos: VideoList
    loader: TrainLoader
    val_loader: EvalLoader
    take_step: TrainStep
    schedule: Callable[[float], float]  # epoch, a real number -> learning rate
    state: TrainingState
    writer: CheckpointWriter
    progress: Progress
    first: Position  # where it starts
    max_epoch: int
    log_period: int  # in optimiser steps
    eval_period: int  # in epochs
    checkpoint_period: int  # in epochs
    early_stop_epochs: int  # without a better validation; 0: never
    num_threads: int  # CPU threads of a step
    accuracy: TrainingAccuracy = field(default_factory=TrainingAccuracy)  # of the epoch under way
    overfitting: str = ""  # what the last validation says of it
    overfitting_seen: bool = False  # by any validation
    last_confusion: tuple[int, np.ndarray] | None = None  # of the last validation: optimiser steps before it, counts
    best_confusion: tuple[int, np.ndarray] | None = None  # of the best one since this process started

    @property
    def stops_early(self) -> bool:
        """Whether the best validation is too old."""
        return 0 < self.early_stop_epochs <= self.state.stale_epochs

    def closing(self, epochs: int) -> str:
        """Which epoch was the best of the run, and why it ends after so many."""
        why = f"{epochs} of {self.max_epoch} epochs trained"
        if self.stops_early:
            why += f": no better validation for {self.state.stale_epochs} (TRAIN.EARLY_STOP_EPOCHS)"
        if not math.isfinite(self.state.best_score):
            return why
        name = decisive_metric(self.state.best_metric, multi_label=self.run.cfg.DATA.MULTI_LABEL)
        score = f"{-self.state.best_score:.3f}" if name == "loss" else f"{self.state.best_score:.1f}%"
        return f"{why}; best validation: {name} {score} after epoch {self.state.best_epoch}"

    def writing(self) -> AbstractContextManager[object]:
        """The context in which the first process writes checkpoints."""
        return self.writer if self.run.processes.rank == 0 else nullcontext()

    def save(self, position: Position, *, is_best: bool = False) -> str:
        """Write a checkpoint, unless a loss was not finite; a sentence about it. Called on all processes."""
        content = self.state.content(position)
        if any(totals["non_finite"] for totals in content["since_log"]):  # the next log line names them
            return "Not saved, since the loss is NaN or infinite"
        if self.run.processes.rank == 0:
            self.writer.write(content, position, is_best=is_best)
        return f"Saved after {position}; to resume: TRAIN.AUTO_RESUME True"

    def failed_write(self) -> str:
        """Why the last checkpoint is not on the disk, on all processes; empty when it is."""
        return distributed.all_gather(str(self.writer.wait() or "") if self.run.processes.rank == 0 else "")[0]

    def save_and_stop(self, stop: Stopped, position: Position, *, may_save: bool = True) -> UserError:
        """Save, and the error that ends the run after a signal; nothing is saved when this process alone stops."""
        if stop.alone and (self.run.processes.world_size > 1 or not may_save):
            resume = "Nothing was saved now; TRAIN.AUTO_RESUME True resumes from the last checkpoint"
            return Stopped(stop.signal, f"{stop}. {resume}", alone=True)
        signal = stop.signal
        message = self.save(position)
        failure = self.failed_write()  # then nobody is to restart it again and again
        return CheckpointError(failure) if failure else stopped(signal, message)


def prepare(run: Run, lists: Mapping[str, VideoList], *, num_threads: int = 0) -> Training:
    """Build everything and load what the training starts from.

    Args:
        run: the run.
        lists: of videos, by split.
        num_threads: CPU threads of a step; 0: as `step_threads` says.

    Raises:
        UserError: what the user can mend, such as a checkpoint of another run or weights that do not fit.
    """
    cfg, rank = run.cfg, run.processes.rank
    videos, dataset = lists["train"], {split: fingerprint(lists[split].records) for split in ("train", "val")}
    with torch.device("meta" if resumes(run) else "cpu"):
        model = build_model(cfg)
    start = find_start(run, model, class_names=videos.class_names, dataset=dataset)
    model.to(run.device)
    freeze_parameters(model, cfg)
    computed = choose_computation(run, model, start, num_threads)
    num_threads = computed["num_threads"]
    loader = build_train_loader(cfg, videos, stop=run.stop, num_threads=num_threads, **run.processes.ranks)
    repeated = cfg.SOLVER.MAX_EPOCH > cfg.TRAIN.EVAL_PERIOD
    val_loader = build_eval_loader(
        cfg, lists["val"], views=Views(), stop=run.stop, repeated=repeated, **run.processes.ranks
    )
    ema = build_ema(model, cfg)
    wrapped = wrap(run, model, ema)
    optimizer = build_optimizer(model, cfg)
    about = description(run, model, class_names=videos.class_names, dataset=dataset, computed=computed)
    writer = CheckpointWriter(
        run.output_dir,
        period_steps=cfg.TRAIN.CHECKPOINT_PERIOD_STEPS,
        period_minutes=cfg.TRAIN.CHECKPOINT_PERIOD_MINUTES,
        keep=cfg.TRAIN.CHECKPOINT_KEEP,
        in_background=cfg.TRAIN.CHECKPOINT_ASYNC,
        about=about,
    )
    take_step = build_train_step(run, wrapped, optimizer, loss_weights(cfg, videos), ema)
    take_step.flags = lambda: [*run.stop.votes(), int(rank == 0 and writer.overdue())]
    failures = FailureLog(
        max_fraction=cfg.DATA.MAX_FAILED_FRACTION,
        path=run.output_dir / "failed_clips.csv" if rank == 0 else None,
        keep=start.position > Position(),
    )
    state = TrainingState(model, optimizer, take_step.scaler, ema and ema.module, failures)
    state.pass_size, state.best_metric = take_step.pass_size, cfg.TRAIN.BEST_METRIC
    state.restore(start)
    clips = fit_into_memory(run, take_step, loader.sampler.micro_batch)
    log.info("%s, at most %d at a time in each process", describe_rate(cfg), clips)
    first, max_epoch, steps_per_epoch = start.position, cfg.SOLVER.MAX_EPOCH, len(loader)
    steps_before = first.epoch * steps_per_epoch + first.step
    training = Training(
        run=run,
        videos=videos,
        val_videos=lists["val"],
        loader=loader,
        val_loader=val_loader,
        take_step=take_step,
        schedule=build_schedule(cfg),
        state=state,
        writer=writer,
        progress=Progress(
            total_steps=max_epoch * steps_per_epoch,
            done_steps=steps_before,
            is_main=rank == 0,
            filling=0 if cast(VideoDataset, loader.dataset).cache is None else steps_per_epoch,
        ),
        first=first,
        max_epoch=max_epoch,
        log_period=cfg.LOG_PERIOD,
        eval_period=cfg.TRAIN.EVAL_PERIOD,
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        early_stop_epochs=cfg.TRAIN.EARLY_STOP_EPOCHS,
        num_threads=num_threads,
    )
    warn_of_unused_keys(run, ignore=("test",))
    write_provenance(run, lists)
    run.events.start_at(epoch=first.epoch, step=steps_before)
    set_training_mode(model)
    return training


def choose_computation(run: Run, model: VideoModel, start: Start, num_threads: int = 0) -> dict[str, Any]:
    """What decides the last bits of the run's numbers, for its checkpoints: threads of a step, forms of operations.

    Args:
        run: the run.
        model: on its device; it is described in the log.
        start: what the run goes on from.
        num_threads: CPU threads of a step; 0: as `step_threads` says.
    """
    cfg, processes = run.cfg, run.processes
    clips = clips_per_pass(cfg, math.prod(model.input_shape), processes.world_size, processes.local_world_size)
    work = clips * describe_model(run, model).multiply_accumulates_per_clip
    if run.device.type != "cpu":
        num_threads = torch.get_num_threads()
    num_threads = num_threads or step_threads(start.num_threads, work, os.environ)
    how: Any = {"setting": cfg.MODEL.KERNELS, "device": run.device, "dtype": run.dtype}
    with cpu_threads(num_threads):
        return choose_kernels(model, clips=clips, recorded=start.content, **how) | {"num_threads": num_threads}


def wrap(run: Run, model: VideoModel, ema: ModelEmaV3 | None) -> nn.Module:
    """The model with the first process's weights and the gradients of all; compiled, as its average is, if wanted."""
    wrapped = parallelize(
        model,
        strategy=run.cfg.DIST.STRATEGY,
        device=run.device,
        world_size=run.processes.world_size,
        average=ema and ema.module,
        dtype=run.dtype if run.device.type == "cuda" else None,
    )
    if run.cfg.MODEL.COMPILE:
        compile_model(model)
        if ema is not None:
            compile_model(ema.module)
    return wrapped


def fit_into_memory(run: Run, take_step: TrainStep, micro_batch: int) -> int:
    """The most clips of a forward pass of this process, tried where a step could not be computed again.

    On an accelerator they are tried for TRAIN.BATCH_SIZE auto, and in several processes for any; never under FSDP2,
    where no process can try alone.

    Raises:
        UserError: not even the smallest pass fits.
    """
    automatic, several = run.cfg.TRAIN.BATCH_SIZE == "auto", run.processes.world_size > 1
    known = take_step.pass_size.clips < micro_batch  # the size of the run that is resumed
    if (automatic or several) and not known and run.device.type != "cpu" and run.cfg.DIST.STRATEGY != "fsdp":
        take_step.find_pass_size(micro_batch, warn=not automatic)
    clips = min(take_step.pass_size.clips, micro_batch)
    if automatic:
        log.info("TRAIN.BATCH_SIZE auto is %d", clips * run.processes.local_world_size)
    return clips


def build_train_step(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    class_weights: Sequence[float] | None,
    ema: ModelEmaV3 | None = None,
) -> TrainStep:
    """The gradient step that the configuration describes, with the weight of each class in the loss."""
    cfg = run.cfg
    spec = ClipSpec.from_config(cfg, training=True)
    return TrainStep(
        model,
        optimizer,
        device=run.device,
        dtype=run.dtype,
        normalize=spec.normalize,
        clip_shape=spec.input_shape,
        num_classes=cfg.MODEL.NUM_CLASSES,
        loss=cfg.MODEL.LOSS_FUNC,
        label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
        class_weights=class_weights,
        clip_grad_norm=cfg.SOLVER.CLIP_GRAD_NORM,
        mixer=build_mixer(cfg),
        ema=ema,
        pass_size=PassSize(
            key="TRAIN.BATCH_SIZE",
            smallest=2 if cfg.MIXUP.ENABLED else 1,
            processes=run.processes.local_world_size,
        ),
    )
