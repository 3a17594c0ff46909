"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from timesformer.datasets.build import build_eval_loader, build_mixer, build_train_loader
from timesformer.datasets.loader import Batch, EvalLoader
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import parallelize
from timesformer.distributed.stop import chosen, stopped
from timesformer.engine.checkpoint import Position
from timesformer.engine.checkpoint_writer import CheckpointWriter
from timesformer.engine.compiling import compile_model
from timesformer.engine.describe import describe_model
from timesformer.engine.events import Progress, what_limits
from timesformer.engine.failures import FailureLog
from timesformer.engine.setup import READ_BY_TEST, Run, warn_of_unused_keys, write_provenance
from timesformer.engine.start import find_start, resumes
from timesformer.engine.state import TrainingState, description
from timesformer.engine.step import StepResult, StepTotals, TrainStep
from timesformer.evaluation.evaluate import evaluate
from timesformer.evaluation.metrics import confusion, log_loss, show_metrics, summarize
from timesformer.models.build import build_model
from timesformer.optim.build import build_ema, build_optimizer, build_schedule, describe_rate, freeze_parameters
from timesformer.optim.freezing import set_training_mode
from timesformer.utils.env import available_cpus, processes_that_share_cpus
from timesformer.utils.errors import CheckpointError, Stopped, UserError
from timesformer.utils.logging import get_logger
from timesformer.utils.random import numpy_generator, torch_seed
from timesformer.utils.sizes import height_width
from timesformer.visualization.confusion import confusion_figure
from timesformer.visualization.contact_sheets import save_contact_sheet
from timesformer.visualization.curves import save_curves

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

log = get_logger(__name__)

NUM_SHOWN_CLIPS = 8


def train(run: Run, lists: Mapping[str, VideoList]) -> None:
    """Train as the configuration says; leaves checkpoints, metrics.jsonl and pictures in the output folder.

    Raises:
        UserError: what the user can mend, such as a checkpoint of another run, too many unreadable clips or a loss
            that is not finite.
    """
    cfg, rank = run.cfg, run.processes.rank
    videos, val_videos = lists["train"], lists["val"]
    dataset = {split: fingerprint(lists[split].records) for split in ("train", "val")}
    loader = build_train_loader(cfg, videos, **run.processes.ranks)
    val_loader = build_eval_loader(cfg, val_videos, views=False, **run.processes.ranks)
    with torch.device("meta" if resumes(run) else "cpu"):
        model = build_model(cfg)
    start = find_start(run, model, class_names=videos.class_names, dataset=dataset)
    model.to(run.device)
    freeze_parameters(model, cfg)
    describe_model(run, model)
    ema = build_ema(model, cfg)
    wrapped = parallelize(  # gives every process the first one's weights
        model,
        strategy=cfg.DIST.STRATEGY,
        device=run.device,
        world_size=run.processes.world_size,
        average=ema and ema.module,
    )
    if cfg.MODEL.COMPILE:
        compile_model(model)
        if ema is not None:
            compile_model(ema.module)
    optimizer = build_optimizer(model, cfg)
    schedule = build_schedule(cfg)
    log.info("%s, at most %d at a time in each process", describe_rate(cfg), loader.sampler.micro_batch)
    writer = CheckpointWriter(
        run.output_dir,
        period_steps=cfg.TRAIN.CHECKPOINT_PERIOD_STEPS,
        period_minutes=cfg.TRAIN.CHECKPOINT_PERIOD_MINUTES,
        keep=cfg.TRAIN.CHECKPOINT_KEEP,
        in_background=cfg.TRAIN.CHECKPOINT_ASYNC,
        about=description(run, model, class_names=videos.class_names, dataset=dataset),
    )

    def votes() -> list[int]:  # what the processes have to agree on after a step
        return [*run.stop.votes(), int(rank == 0 and writer.overdue())]

    take_step = build_train_step(run, wrapped, optimizer, ema, votes)
    failures = FailureLog(
        max_fraction=cfg.DATA.MAX_FAILED_FRACTION,
        path=run.output_dir / "failed_clips.csv" if rank == 0 else None,
        keep=start.position > Position(),
    )
    state = TrainingState(model, optimizer, take_step.scaler, ema and ema.module, failures)
    state.restore(start)
    first = start.position
    del start  # the checkpoint in it is as large as the training's state
    max_epoch, eval_period, checkpoint_period = cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.EVAL_PERIOD, cfg.TRAIN.CHECKPOINT_PERIOD
    steps_per_epoch, log_period = len(loader), cfg.LOG_PERIOD
    warn_of_unused_keys(run, others=READ_BY_TEST)
    write_provenance(run, lists)
    if first.epoch >= max_epoch:
        log.info("already trained for %s of SOLVER.MAX_EPOCH %d: nothing to train", first, max_epoch)
        return
    steps_before = first.epoch * steps_per_epoch + first.step
    run.events.start_at(epoch=first.epoch, step=steps_before)
    progress = Progress(total_steps=max_epoch * steps_per_epoch, done_steps=steps_before, is_main=rank == 0)
    set_training_mode(model)

    def save(position: Position, *, is_best: bool = False) -> str:
        content = state.content(position)  # of all processes
        if any(totals["non_finite"] for totals in content["since_log"]):  # the next log line names them
            return "Not saved, since the loss is NaN or infinite"
        if rank == 0:
            writer.write(content, position, is_best=is_best)
        return f"Saved after {position}; to go on: TRAIN.AUTO_RESUME True"

    def failed_write() -> str:  # why the last checkpoint is not on the disk, on all processes
        return distributed.all_gather(str(writer.wait() or "") if rank == 0 else "")[0]

    def save_and_stop(signal: int, position: Position) -> UserError:
        told = save(position)
        failed = failed_write()  # then nobody is to start it again and again
        return CheckpointError(failed) if failed else stopped(signal, told)

    with run.stop.heard(), writer if rank == 0 else nullcontext():
        for epoch in range(first.epoch, max_epoch):
            done_steps = first.step if epoch == first.epoch else 0
            loader.set_epoch(epoch, done_steps=done_steps)
            if not done_steps:
                failures.start_epoch()
            progress.rates()  # validation is no part of the training speed
            save_now = False
            waiting_since = time.perf_counter()
            for i, (step, batches) in enumerate(loader, start=done_steps):
                # Dropout and stochastic depth depend on (seed, epoch, step, process): a resumed run is the same run.
                torch.manual_seed(torch_seed(numpy_generator(cfg.RNG_SEED, epoch, i, rank, 2)))
                clock = _WaitClock(batches, waiting_since)
                lr = schedule(epoch + i / steps_per_epoch)
                draws = rank == 0 and progress.step == steps_before
                fed = show_input(run, clock, videos) if draws else clock
                result = take_step(fed, num_samples=step.num_samples, epoch=epoch, lr=lr, global_step=progress.step)
                result.asked = [key.index for keys in step.micro_batches for key in keys]
                state.since_log.note(result)
                progress.advance(clips=step.num_samples, waited_sec=clock.waited_sec)
                is_last, (*stops, overdue) = i + 1 == steps_per_epoch, result.votes
                if is_last or progress.step % log_period == 0:
                    now = epoch + (i + 1) / steps_per_epoch
                    log_steps(run, state.since_log, result, progress, now, videos, failures)
                    state.since_log = StepTotals()
                    if (share := progress.settled_wait_share()) is not None:
                        cpus = available_cpus() // processes_that_share_cpus(run.processes.local_world_size)
                        cached = cfg.DATA_LOADER.CACHE != "none"
                        log.info(what_limits(share, num_workers=loader.num_workers, num_cpus=cpus, cached=cached))
                signal, save_now = chosen(stops), overdue > 0 or writer.due(progress.step)
                if signal:
                    raise save_and_stop(signal, Position(epoch, i + 1))
                if save_now and (overdue or not is_last):
                    save(Position(epoch, i + 1))
                waiting_since = time.perf_counter()
            failures.judge()

            last = epoch + 1 == max_epoch
            is_best, state.metrics = False, {}
            if (epoch + 1) % eval_period == 0 or last:
                try:
                    metrics = validate(run, state.tested_model, val_loader, epoch, progress.step, val_videos)
                except Stopped as stop:  # the steps of the epoch are done, its validation is not
                    raise save_and_stop(stop.signal, Position(epoch, steps_per_epoch)) from None
                is_best = state.score(metrics)
            if (epoch + 1) % checkpoint_period == 0 or last or is_best or save_now:
                save(Position(epoch + 1), is_best=is_best)
        if failed := failed_write():
            raise CheckpointError(failed)
    progress.close()
    if rank == 0:
        save_curves(run.events.history(), run.output_dir / "curves.png")
        log.info("trained; learning curves in %s", run.output_dir / "curves.png")
    distributed.barrier()  # the test of every process reads the checkpoint that the first has written


def show_input(run: Run, batches: Iterable[Batch], videos: VideoList) -> Iterator[Batch]:
    """Passes batches on; draws clips of the first one, in input_clips.png and in TensorBoard."""
    names = videos.class_names
    for place, batch in enumerate(batches):
        if place == 0 and batch.clips is not None:
            clips, rows = batch.clips[:NUM_SHOWN_CLIPS].numpy(), []  # (b, C, T, H, W)
            for clip, label, index in zip(clips, batch.labels, batch.indices, strict=False):
                name = names[label] if names and isinstance(label, int) else f"label {label}"
                rows.append((f"{name}: {videos.records[index].path}", clip.transpose(1, 2, 3, 0)))
            save_contact_sheet(rows, run.output_dir / "input_clips.png", "Training clips as the model is fed them")
            run.events.clips("train/input", clips, step=0)
        yield batch


def build_train_step(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ModelEmaV3 | None = None,
    votes: Callable[[], Sequence[int]] = tuple,
) -> TrainStep:
    """The gradient step that the configuration describes."""
    cfg = run.cfg
    return TrainStep(
        model,
        optimizer,
        device=run.device,
        dtype=run.dtype,
        to_input=run.to_input,
        clip_shape=(3, cfg.DATA.NUM_FRAMES, *height_width(cfg.DATA.TRAIN_CROP_SIZE)),
        num_classes=cfg.MODEL.NUM_CLASSES,
        loss=cfg.MODEL.LOSS_FUNC,
        label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
        clip_grad_norm=cfg.SOLVER.CLIP_GRAD_NORM,
        mixer=build_mixer(cfg),
        ema=ema,
        votes=votes,
    )


def log_steps(
    run: Run,
    mine: StepTotals,
    latest: StepResult,
    progress: Progress,
    epoch: float,
    videos: VideoList,
    failures: FailureLog,
) -> None:
    """Log the steps since the last time, of all processes; waits for the device.

    Raises:
        UserError: a loss is NaN or infinite (names the clips of the first such step), or see `FailureLog.add`.
    """
    mine.settle()
    totals = distributed.all_gather(mine)
    if non_finite := sorted(pair for total in totals for pair in total.non_finite):
        step = non_finite[0][0]
        bad = [videos.records[index] for its_step, index in non_finite if its_step == step]
        names = "\n".join(f"  {record.path} ({record.source})" for record in bad[:20])
        raise UserError(
            f"the loss became NaN or infinite at step {step} (epoch {epoch:.2f} or a little before), learning rate "
            f"{latest.lr:.3g}, for {len(bad)} clip(s):\n{names}\n"
            "Look at them with tools/preview_data.py. If they are fine, lower SOLVER.BASE_LR, lengthen "
            "SOLVER.WARMUP_EPOCHS, set SOLVER.CLIP_GRAD_NORM 1, or use PRECISION bf16 or fp32."
        )
    for total in totals:
        run.warn_once(total.warnings)
        failures.add(total.failures, asked=total.asked)
    clips = max(1, sum(total.clips for total in totals))
    values = {
        "loss": sum(total.loss for total in totals) / clips,
        "top1": 100.0 * sum(total.correct for total in totals) / clips,
        "lr": latest.lr,
        "distinct_frames": sum(total.distinct_frames for total in totals) / clips,
    }
    if latest.grad_norm is not None:
        values["grad_norm"] = float(latest.grad_norm)
    values |= progress.rates()
    progress.show(epoch, values)
    run.events.record("train", epoch=epoch, step=progress.step, **values)


def validate(
    run: Run, model: nn.Module, loader: EvalLoader, epoch: int, step: int, videos: VideoList
) -> dict[str, float]:
    """Score the validation list with one centre view per video; deterministic."""
    cfg = run.cfg
    predictions = evaluate(run, model, loader, ensemble="mean", title="validation")
    run.warn_once(predictions.warnings)
    scores = predictions.scores
    metrics = summarize(scores, predictions.labels, multi_label=cfg.DATA.MULTI_LABEL)
    metrics["loss"] = log_loss(scores, predictions.labels, multi_label=cfg.DATA.MULTI_LABEL)
    run.events.record("val", epoch=epoch + 1, step=step, **metrics)
    if not cfg.DATA.MULTI_LABEL and len(predictions.labels):
        matrix = confusion(scores, np.asarray(predictions.labels))
        run.events.figure("val/confusion", partial(confusion_figure, matrix, videos.class_names), step)
    shown = f"loss {metrics['loss']:.3f}  " + show_metrics(metrics)
    scored = f"{len(predictions.labels)}/{predictions.num_videos} videos"
    log.info("epoch %6.2f  validation  %s  (%s, 1 x 1 view)", epoch + 1, shown, scored)
    return metrics


class _WaitClock(Iterable[Batch]):
    """Passes batches on and adds up the time spent waiting for them."""

    def __init__(self, batches: Iterator[Batch], waiting_since: float) -> None:
        self.batches = batches
        self.waited_sec = time.perf_counter() - waiting_since

    def __iter__(self) -> Iterator[Batch]:
        while True:
            since = time.perf_counter()
            batch = next(self.batches, None)
            self.waited_sec += time.perf_counter() - since
            if batch is None:
                return
            yield batch
