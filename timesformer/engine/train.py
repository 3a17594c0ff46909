"""The training loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import cast

import numpy as np

from timesformer.datasets.records import VideoList
from timesformer.datasets.video_dataset import Batch, VideoDataset
from timesformer.distributed import group as distributed
from timesformer.distributed.stop import chosen, stopped
from timesformer.engine.calibrate import calibration_of
from timesformer.engine.checkpoint import Position
from timesformer.engine.events import data_advice
from timesformer.engine.overfitting import TrainingAccuracy, overfitting_message
from timesformer.engine.setup import Run
from timesformer.engine.step import StepResult, StepTotals
from timesformer.engine.training import Training, prepare
from timesformer.evaluation.metrics import confusion, log_loss, show_metrics, summarize
from timesformer.utils.compute import cpu_threads
from timesformer.utils.env import available_cpus, processes_that_share_cpus
from timesformer.utils.errors import CheckpointError, Stopped, UserError
from timesformer.utils.logging import get_logger
from timesformer.utils.random import step_seed

log = get_logger(__name__)

NUM_SHOWN_CLIPS = 8


def train(run: Run, lists: Mapping[str, VideoList]) -> None:
    """Train as the configuration says; leaves checkpoints, metrics.jsonl and pictures in the output folder.

    Raises:
        UserError: what the user can mend, such as a checkpoint of another run, too many unreadable clips or a loss
            that is not finite.
    """
    training = prepare(run, lists)
    first, state, max_epoch = training.first, training.state, training.max_epoch
    if first.epoch >= max_epoch:
        log.info("already trained for %s of SOLVER.MAX_EPOCH %d: nothing to train", first, max_epoch)
        return
    with run.stop.heard(), training.writing():
        for epoch in range(first.epoch, max_epoch):
            if training.stops_early:  # also when the run was resumed after its end
                max_epoch = epoch
                break
            save_now = train_epoch(training, epoch, done_steps=first.step if epoch == first.epoch else 0)
            state.failures.judge()
            is_last = epoch + 1 == max_epoch
            is_best, state.metrics, state.calibration = False, {}, None
            if (epoch + 1) % training.eval_period == 0 or is_last:
                try:
                    is_best = state.score(validate(training, epoch), epoch=epoch + 1)
                    training.best_confusion = training.last_confusion if is_best else training.best_confusion
                except Stopped as stop:  # the steps of the epoch are done, its validation is not
                    raise training.save_and_stop(stop, Position(epoch, len(training.loader))) from None
            if (epoch + 1) % training.checkpoint_period == 0 or is_last or is_best or save_now or training.stops_early:
                training.save(Position(epoch + 1), is_best=is_best)
        if failure := training.failed_write():
            raise CheckpointError(failure)
    training.loader.close()
    show_confusions(training)
    training.progress.close()
    log.info("%s", training.closing(max_epoch))
    if training.overfitting:
        run.remarks.append(training.overfitting)
    if found := state.calibration:
        safe = f"at most 1% wrong from {found.threshold:.2f} on" if found.threshold < 1 else "no score is safe"
        text = "scores calibrated on %d validation clips: temperature %.2f, %s"
        log.info(text, found.clips, found.temperature, safe)
    if run.processes.rank == 0:
        from timesformer.visualization.curves import save_curves
        from timesformer.visualization.figures import optional

        with optional(picture := run.output_dir / "curves.png"):
            save_curves(run.events.history(), picture)
            log.info("trained; learning curves in %s", picture)
    distributed.barrier()  # the test of every process reads the checkpoint that the first has written


def train_epoch(training: Training, epoch: int, *, done_steps: int) -> bool:
    """Take the steps of an epoch that are left; whether a checkpoint is due at its end.

    Raises:
        Stopped: a process got a signal; the step is saved.
    """
    run, loader, state, progress = training.run, training.loader, training.state, training.progress
    rank, num_steps = run.processes.rank, len(loader)
    loader.set_epoch(epoch, done_steps=done_steps)
    if not done_steps:
        state.failures.start_epoch()
    training.accuracy = TrainingAccuracy()
    progress.rates()  # validation is no part of the training speed
    save_now = False
    for i, (step, batches) in enumerate(loader, start=done_steps):
        try:
            if progress.step == progress.first_step and rank == 0:
                batches = show_input(run, batches, training.videos)
            with cpu_threads(training.num_threads):
                result = training.take_step(
                    batches,
                    num_samples=step.num_samples,
                    requested=[key.index for keys in step.micro_batches for key in keys],
                    epoch=epoch,
                    lr=training.schedule(epoch + i / num_steps),
                    global_step=progress.step,
                    seed=step_seed(run.cfg.RNG_SEED, epoch=epoch, step=i, rank=rank),
                )
        except Stopped as stop:  # no data came; before its first clips the step has changed nothing
            may_save = i > done_steps and not loader.inside_step
            raise training.save_and_stop(stop, Position(epoch, i), may_save=may_save) from None
        state.since_log.note(result)
        progress.advance(clips=step.num_samples, waited_sec=loader.waited_sec)
        loader.waited_sec = 0.0
        is_last, (*stops, overdue) = i + 1 == num_steps, result.flags
        if is_last or progress.step % training.log_period == 0:
            log_steps(training, result, epoch + (i + 1) / num_steps)
        if signal := chosen(stops):
            raise training.save_and_stop(stopped(signal), Position(epoch, i + 1))
        save_now = overdue > 0 or training.writer.due(progress.step)
        if save_now and (overdue or not is_last):
            training.save(Position(epoch, i + 1))
    return save_now


def show_input(run: Run, batches: Iterator[Batch], videos: VideoList) -> Iterator[Batch]:
    """The same batches; clips of the first one are drawn in input_clips.png and in TensorBoard."""
    batch = next(batches)
    if batch.clips is not None:
        from timesformer.visualization.contact_sheets import clip_frames, label_name, save_contact_sheet
        from timesformer.visualization.figures import optional

        clips, rows = run.spec.shown(batch.clips[:NUM_SHOWN_CLIPS]).numpy(), []  # (b, C, T, H, W)
        for clip, label, index in zip(clips, batch.labels, batch.indices, strict=False):
            name = label_name(label, videos.class_names)
            rows.append((f"{name}: {videos.records[index].path}", clip_frames(clip)))
        with optional(picture := run.output_dir / "input_clips.png"):
            save_contact_sheet(rows, picture, "Training clips as the model gets them")
        run.events.clips("train/input", clips, step=0)
    return itertools.chain([batch], batches)


def log_steps(training: Training, latest: StepResult, epoch: float) -> None:
    """Log the steps since the last time, of all processes; waits for the device.

    Raises:
        UserError: a loss is NaN or infinite (names the clips of the first such step), or see `FailureLog.add`.
    """
    run, state, progress = training.run, training.state, training.progress
    state.since_log.settle()
    totals = distributed.all_gather(state.since_log)
    state.since_log = StepTotals()
    if non_finite := sorted(pair for total in totals for pair in total.non_finite):
        raise _loss_error(non_finite, latest, epoch, training.videos)
    for total in totals:
        run.warn_once(total.warnings)
        state.failures.add(total.failures, requested=total.requested)
    clips, correct = max(1, sum(total.clips for total in totals)), sum(total.correct for total in totals)
    training.accuracy.add(correct=correct, clips=clips)
    values = {
        "loss": sum(total.loss for total in totals) / clips,
        "top1": 100.0 * correct / clips,
        "lr": latest.lr,
        "distinct_frames": sum(total.distinct_frames for total in totals) / clips,
    }
    if latest.grad_norm is not None:
        values["grad_norm"] = float(latest.grad_norm)
    values |= progress.rates()
    progress.show(epoch, values)
    run.events.record("train", epoch=epoch, step=progress.step, **values)
    if (share := progress.settled_wait_share()) is not None:
        advice = data_advice(
            share,
            num_workers=training.loader.num_workers,
            num_cpus=available_cpus() // processes_that_share_cpus(run.processes.local_world_size),
            cached=cast(VideoDataset, training.loader.dataset).cache is not None,
        )
        log.info("%s", advice)


def _loss_error(non_finite: list[tuple[int, int]], latest: StepResult, epoch: float, videos: VideoList) -> UserError:
    """The error for losses that are NaN or infinite, by (step, dataset index)."""
    step = non_finite[0][0]
    bad = [videos.records[index] for its_step, index in non_finite if its_step == step]
    names = "\n".join(f"  {record.path} ({record.source})" for record in bad[:20])
    return UserError(
        f"the loss became NaN or infinite at step {step} (epoch {epoch:.2f} or a little before), learning rate "
        f"{latest.lr:.3g}, for {len(bad)} clip(s):\n{names}\n"
        "Look at them with `timesformer preview`. If they are fine, lower SOLVER.BASE_LR, lengthen "
        "SOLVER.WARMUP_EPOCHS, set SOLVER.CLIP_GRAD_NORM 1, or use PRECISION bf16 or fp32."
    )


def validate(training: Training, epoch: int) -> dict[str, float]:
    """Score the validation list with one centre view per video; deterministic.

    Raises:
        Stopped: a process got a signal.
    """
    run, multi_label = training.run, training.run.cfg.DATA.MULTI_LABEL
    predictions = run.evaluate(training.state.tested_model, training.val_loader, ensemble="mean", title="validation")
    run.warn_once(predictions.warnings)
    scores, labels = predictions.scores, predictions.labels
    people = training.val_videos.people(predictions.indices)
    metrics = summarize(scores, labels, multi_label=multi_label, people=people)
    metrics["loss"] = log_loss(scores, labels, multi_label=multi_label)
    run.events.record("val", epoch=epoch + 1, step=training.progress.step, **metrics)
    if not multi_label and len(labels) and run.events.board is not None:
        training.last_confusion = training.progress.step, confusion(scores, np.asarray(labels))
    chosen = training.state.best_metric
    main = {name: value for name, value in metrics.items() if name in ("mAP", chosen) or name.startswith("top1")}
    scored = f"{len(labels)}/{predictions.num_videos} videos"
    log.info("epoch %5.2f  validation  loss %.3f  %s  (%s)", epoch + 1, metrics["loss"], show_metrics(main), scored)
    if not multi_label and run.processes.rank == 0:
        training.state.calibration = calibration_of(predictions)
    if not multi_label and len(labels) and training.take_step.mixer is None:  # mixed clips have no one label
        report_overfitting(training, metrics, np.asarray(labels))
    return metrics


def show_confusions(training: Training) -> None:
    """Draw the classes that the best and the last validation confused in TensorBoard: a picture takes a second."""
    found = dict(pair for pair in (training.best_confusion, training.last_confusion) if pair is not None)
    if found:
        from timesformer.visualization.confusion import confusion_figure

        for step, matrix in found.items():
            draw = partial(confusion_figure, matrix, training.val_videos.class_names)
            training.run.events.figure("val/confusion", draw, step)


def report_overfitting(training: Training, metrics: Mapping[str, float], labels: np.ndarray) -> None:
    """Log overfitting when it is first seen, and keep what to say of it at the end of the run."""
    cfg, crop = training.run.cfg, ("jitter_scales", "inverse_uniform")
    augmentation = cast(VideoDataset, training.loader.dataset).augmentation
    message = overfitting_message(
        training.accuracy.top1,
        metrics,
        num_videos=len(labels),
        largest_class=100.0 * np.bincount(labels).max() / len(labels),
        augmented=any(value for name, value in augmentation.items() if name not in crop),
        pretrained=bool(cfg.TRAIN.CHECKPOINT_FILE_PATH or cfg.MODEL.WEIGHTS),
        averaged=training.state.ema is not None,
    )
    if message and not training.overfitting_seen:
        log.warning("%s", message)
    training.overfitting, training.overfitting_seen = message, training.overfitting_seen or bool(message)
