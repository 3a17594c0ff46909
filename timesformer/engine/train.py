"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from timesformer.datasets.build import build_eval_loader, build_mixer, build_train_loader
from timesformer.datasets.loader import Batch, EvalLoader
from timesformer.datasets.records import VideoList
from timesformer.datasets.video_dataset import Sample, SampleKey
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.describe import describe_model
from timesformer.engine.evaluate import evaluate_videos
from timesformer.engine.events import Progress
from timesformer.engine.failures import FailureLog
from timesformer.engine.metrics import confusion, log_loss, show_metrics, summarize
from timesformer.engine.setup import READ_BY_TEST, Run, warn_of_unused_keys, write_provenance
from timesformer.engine.step import NonFiniteLossError, StepResult, StepTotals, TrainStep
from timesformer.models.build import build_model
from timesformer.models.pretrained import load_weights
from timesformer.optim.build import build_optimizer, build_schedule
from timesformer.utils import distributed
from timesformer.utils.errors import CheckpointError
from timesformer.utils.logging import get_logger
from timesformer.utils.random import numpy_generator, torch_seed
from timesformer.utils.sizes import height_width
from timesformer.visualization.confusion import confusion_figure
from timesformer.visualization.contact_sheets import save_contact_sheet
from timesformer.visualization.curves import save_curves

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
    ranks = {"rank": rank, "world_size": run.processes.world_size}
    loader = build_train_loader(cfg, videos, **ranks)
    val_loader = build_eval_loader(cfg, val_videos, views=False, **ranks)
    model = build_model(cfg).to(run.device)
    describe_model(run, model)
    optimizer = build_optimizer(model, cfg)
    schedule = build_schedule(cfg)
    start = starting_point(run, model, optimizer)
    take_step = build_train_step(run, wrap(model, run), optimizer)
    if start.scaler_state:
        take_step.scaler.load_state_dict(start.scaler_state)
    max_epoch, eval_period, checkpoint_period = cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.EVAL_PERIOD, cfg.TRAIN.CHECKPOINT_PERIOD
    steps_per_epoch, log_period = len(loader), cfg.LOG_PERIOD
    failures = FailureLog(
        max_fraction=cfg.DATA.MAX_FAILED_FRACTION,
        path=run.output_dir / "failed_clips.csv" if rank == 0 else None,
        keep=start.epoch > 0,
    )
    warn_of_unused_keys(run, others=READ_BY_TEST)
    write_provenance(run, lists)
    if start.epoch >= max_epoch:
        log.info("already trained for %d of SOLVER.MAX_EPOCH %d epochs: nothing to train", start.epoch, max_epoch)
        return
    run.events.start_at(epoch=start.epoch, step=start.epoch * steps_per_epoch)
    if rank == 0:
        show_input(run, loader.dataset, videos)
    progress = Progress(
        total_steps=max_epoch * steps_per_epoch, done_steps=start.epoch * steps_per_epoch, is_main=rank == 0
    )
    best_score = start.best_score
    model.train()

    for epoch in range(start.epoch, max_epoch):
        # Dropout and stochastic depth depend on (seed, epoch, process), so that a resumed run is the same run.
        torch.manual_seed(torch_seed(numpy_generator(cfg.RNG_SEED, epoch, rank)))
        loader.set_epoch(epoch)
        failures.start_epoch()
        since_log: list[StepResult] = []
        progress.rates()  # validation is no part of the training speed
        waiting_since = time.perf_counter()
        for i, (step, batches) in enumerate(loader):
            clock = _WaitClock(batches, waiting_since)
            lr = schedule(epoch + i / steps_per_epoch)
            since_log.append(take_step(clock, num_samples=step.num_samples, epoch=epoch, lr=lr))
            since_log[-1].asked = [key.index for keys in step.micro_batches for key in keys]
            progress.advance(clips=step.num_samples, waited_sec=clock.waited_sec)
            if progress.step % log_period == 0 or i + 1 == steps_per_epoch:
                log_steps(run, since_log, progress, epoch + (i + 1) / steps_per_epoch, videos, failures)
                since_log = []
            waiting_since = time.perf_counter()
        failures.judge()

        last = epoch + 1 == max_epoch
        metrics: dict[str, float] = {}
        if (epoch + 1) % eval_period == 0 or last:
            metrics = validate(run, model, val_loader, epoch, progress.step, val_videos)
        score = metrics.get("mAP", metrics.get("top1", -math.inf))
        is_best = score > best_score
        best_score = score if is_best else best_score
        if ((epoch + 1) % checkpoint_period == 0 or last or is_best) and rank == 0:
            checkpoints.save_checkpoint(
                run.output_dir,
                model=model,
                optimizer=optimizer,
                scaler_state=take_step.scaler.state_dict(),
                epoch=epoch,
                cfg=cfg,
                class_names=videos.class_names,
                metrics=metrics,
                best_score=best_score,
                is_best=is_best,
            )
    progress.close()
    if rank == 0:
        save_curves(run.events.history(), run.output_dir / "curves.png")
        log.info("trained; learning curves in %s", run.output_dir / "curves.png")
    distributed.barrier()  # the test of every process reads the checkpoint that the first has written


def show_input(run: Run, dataset: Dataset[Sample], videos: VideoList) -> None:
    """Draw the first training clips as the model is fed them, in input_clips.png and in TensorBoard."""
    count = len(videos.records)
    picks = np.unique(np.linspace(0, count - 1, NUM_SHOWN_CLIPS).astype(int))
    samples = [dataset[SampleKey(0, 0, int(index))] for index in picks]
    clips = [(sample, sample.views[0]) for sample in samples if sample.views is not None]  # (C, T, H, W) each
    if not clips:
        return
    names = videos.class_names
    rows = []
    for sample, clip in clips:
        label = names[sample.label] if names and isinstance(sample.label, int) else f"label {sample.label}"
        rows.append((f"{label}: {videos.records[sample.index].path}", clip.permute(1, 2, 3, 0).numpy()))
    save_contact_sheet(rows, run.output_dir / "input_clips.png", "Training clips as the model is fed them")
    run.events.clips("train/input", torch.stack([clip for _, clip in clips]).numpy(), step=0)


def build_train_step(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainStep:
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
    )


@dataclass
class StartingPoint:
    """Where training begins: at epoch 0, or where a checkpoint left off."""

    epoch: int = 0
    best_score: float = -math.inf
    scaler_state: dict[str, Any] = field(default_factory=dict)


def starting_point(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> StartingPoint:
    """Load what the configuration asks to start from, and say so.

    `TRAIN.AUTO_RESUME` goes on from the newest checkpoint in OUTPUT_DIR. Otherwise `TRAIN.CHECKPOINT_FILE_PATH` is
    taken: only its weights with `TRAIN.FINETUNE`; weights and optimiser from epoch 0 with
    `TRAIN.CHECKPOINT_EPOCH_RESET`; else its whole state.

    Raises:
        CheckpointError: an earlier run is in OUTPUT_DIR and AUTO_RESUME is off, or the checkpoint is of another run.
    """
    cfg = run.cfg
    newest, auto_resume = checkpoints.newest_checkpoint(cfg.OUTPUT_DIR), cfg.TRAIN.AUTO_RESUME
    if newest is not None and not auto_resume:
        raise CheckpointError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds a run already ({newest.name}). To go on with it add "
            "TRAIN.AUTO_RESUME True; to train anew choose another OUTPUT_DIR or delete that folder."
        )
    path = newest or cfg.TRAIN.CHECKPOINT_FILE_PATH
    if not path:
        return StartingPoint()
    if newest is None and cfg.TRAIN.FINETUNE:
        log.info("fine-tuning: %s", load_weights(model, path))
        return StartingPoint()
    content = checkpoints.read_checkpoint(path)
    if newest is not None:
        checkpoints.check_same_run(content, path, cfg)
    checkpoints.restore(content, path, model=model, optimizer=optimizer)
    if newest is None and cfg.TRAIN.CHECKPOINT_EPOCH_RESET:
        log.info("weights and optimiser from %s, starting at epoch 0", path)
        return StartingPoint()
    epoch = content["epoch"] + 1
    log.info("going on from %s, after %d epochs", path, epoch)
    return StartingPoint(epoch, content.get("best_score", -math.inf), content.get("scaler_state", {}))


def wrap(model: nn.Module, run: Run) -> nn.Module:
    """The model under DistributedDataParallel when there are several processes."""
    if run.processes.world_size == 1:
        return model
    device_ids = [run.device.index] if run.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids)


def log_steps(
    run: Run,
    results: list[StepResult],
    progress: Progress,
    epoch: float,
    videos: VideoList,
    failures: FailureLog,
) -> None:
    """Log the steps since the last time, of all processes: the one place of the loop that waits for the device.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite; names the clips of the first such step.
        TooManyFailuresError: see `FailureLog.add`.
    """
    mine = StepTotals.of(results)
    totals = distributed.all_gather(mine)
    for place, result in enumerate(results):
        bad = [index for total in totals for index in total.non_finite[place]]
        if bad:
            names = "\n".join(f"  {videos.records[i].path} ({videos.records[i].source})" for i in bad[:20])
            raise NonFiniteLossError(
                f"the loss became NaN or infinite at step {progress.step - len(results) + place + 1} (epoch "
                f"{epoch:.2f} or a little before), learning rate {result.lr:.3g}, for {len(bad)} clip(s):\n{names}\n"
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
        "lr": results[-1].lr,
        "distinct_frames": sum(total.distinct_frames for total in totals) / clips,
    }
    if results[-1].grad_norm is not None:
        values["grad_norm"] = float(results[-1].grad_norm)
    values |= progress.rates()
    progress.show(epoch, values)
    run.events.record("train", epoch=epoch, step=progress.step, **values)


def validate(
    run: Run, model: nn.Module, loader: EvalLoader, epoch: int, step: int, videos: VideoList
) -> dict[str, float]:
    """Score the validation list with one centre view per video; deterministic."""
    cfg = run.cfg
    predictions = evaluate_videos(run, model, loader, ensemble="mean", title="validation")
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
