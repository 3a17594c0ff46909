"""`--check`: look at configuration and data, and run one tiny step, without training."""

from __future__ import annotations

import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from timesformer.config.load import LoadedConfig
from timesformer.curation.list_checks import class_findings
from timesformer.datasets.build import (
    balance,
    build_eval_dataset,
    build_train_dataset,
    clips_per_pass,
    load_list,
    loss_weights,
)
from timesformer.datasets.counts import count_table
from timesformer.datasets.inspect import inspect_videos
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.datasets.video_dataset import Batch, VideoDataset, collate
from timesformer.distributed.launch import Processes
from timesformer.engine.checkpoint import newest_checkpoint
from timesformer.engine.describe import describe_model
from timesformer.engine.events import RunEvents
from timesformer.engine.failures import FailureLog
from timesformer.engine.load_weights import load_and_report
from timesformer.engine.setup import Run, warn_of_unused_keys
from timesformer.engine.start import Start, find_start
from timesformer.engine.state import TrainingState
from timesformer.engine.training import build_train_step
from timesformer.models.build import build_model
from timesformer.models.contract import VideoModel
from timesformer.models.summary import summarize
from timesformer.optim.build import build_ema, build_optimizer, build_schedule, freeze_parameters
from timesformer.utils.compute import autocast, choose_device, choose_precision
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger
from timesformer.video.clip_spec import Views
from timesformer.weights.sources import is_hub_name

log = get_logger(__name__)

MAX_VIDEOS = 1000  # of each list that the check decodes
NUM_TIMED_CLIPS = 4  # by which the time of a training is estimated
# Multiply-accumulates of a clip above which the check on a CPU runs forward only.
_CPU_BACKWARD_LIMIT = 1_000_000_000_000


def check(run: Run, lists: Mapping[str, VideoList]) -> None:
    """Open the videos of every list, build everything, and take one clip through the model.

    Raises:
        UserError: naming what is wrong.
    """
    cfg = run.cfg
    unreadable: set[str] = set()
    log.info("\n%s\n", count_table(lists, cfg.MODEL.NUM_CLASSES))
    balanced = "train" in lists and balance(cfg, lists["train"]) != "none"
    found = class_findings(lists, balanced=balanced)
    run.warn_once(f"{each.what}. {each.advice}" for each in found if each.check != "missing classes")
    for split, videos in lists.items():
        report = inspect_videos(
            videos.records,
            frame_sampler=run.spec.frame_sampler(),
            backend=cfg.DATA.DECODING_BACKEND,
            max_videos=MAX_VIDEOS,
            show_progress=sys.stderr.isatty(),
        )
        log.info("\n%s list: %s\n", split, report)
        unreadable |= {failure.path for failure in report.failures}
    model = build_model(cfg).to(run.device)
    absent: list[str] = []
    start = Start()
    if cfg.TRAIN.ENABLE:
        start, absent = load_start(run, model, lists)
        freeze_parameters(model, cfg)
    describe_model(run, model)
    tiny_step(run, model, next(iter(lists.values())), start)
    if path := cfg.TEST.ENABLE and cfg.TEST.CHECKPOINT_FILE_PATH:
        if is_hub_name(path) or Path(path).exists():
            load_and_report(run, model, path, lists["test"].class_names, testing=True)
        else:
            absent.append(f"TEST.CHECKPOINT_FILE_PATH {path}")
    warn_of_unused_keys(run, ignore=("training", "test"))
    for setting in absent:
        log.warning("%s does not exist: the run will stop there", setting)
    if unreadable:
        raise UserError(f"{len(unreadable)} video(s) cannot be read in full; they are listed above")
    log.info("check passed; `timesformer doctor` also finds copies of videos and likely label errors")


def load_start(run: Run, model: nn.Module, lists: Mapping[str, VideoList]) -> tuple[Start, list[str]]:
    """Load what training starts from, as the run will; and the settings that name files which are not there.

    Raises:
        CheckpointError: see `find_start`.
    """
    cfg = run.cfg
    there = newest_checkpoint(cfg.OUTPUT_DIR) is not None
    if there and not cfg.TRAIN.AUTO_RESUME:
        log.warning("OUTPUT_DIR %s holds a run already: set another one, or TRAIN.AUTO_RESUME True", cfg.OUTPUT_DIR)
        return Start(), []
    sources = {"TRAIN.CHECKPOINT_FILE_PATH": cfg.TRAIN.CHECKPOINT_FILE_PATH}
    if not sources["TRAIN.CHECKPOINT_FILE_PATH"]:
        sources = {"MODEL.WEIGHTS": cfg.MODEL.WEIGHTS}
    local = {key: path for key, path in sources.items() if path and not there and not is_hub_name(path)}
    if absent := [f"{key} {path}" for key, path in local.items() if not Path(path).exists()]:
        return Start(), absent
    fingerprints = {split: fingerprint(lists[split].records) for split in ("train", "val")}
    return find_start(run, model, class_names=lists["train"].class_names, dataset=fingerprints), []


def tiny_step(run: Run, model: VideoModel, videos: VideoList, start: Start) -> None:
    """The first readable clip through the model: a training step, whose time is extrapolated, or a forward pass.

    Forward only when the run does not train, and for huge models on a CPU (their backward needs tens of gigabytes).
    """
    cfg = run.cfg
    dataset = build_train_dataset(cfg, videos) if cfg.TRAIN.ENABLE else build_eval_dataset(cfg, videos, views=Views())
    samples = (sample for index in range(len(dataset)) if (sample := dataset[index]).views is not None)
    first = next(samples, None)
    if first is None or first.views is None:
        raise UserError("not one video of the list can be read; look at the table above")
    optimizer = build_optimizer(model, cfg) if cfg.TRAIN.ENABLE else None
    work = summarize(model).multiply_accumulates_per_clip
    if optimizer is not None and (run.device.type != "cpu" or work < _CPU_BACKWARD_LIMIT):
        take_step = build_train_step(run, model, optimizer, loss_weights(cfg, videos))
        ema = build_ema(model, cfg)
        failures = FailureLog(max_fraction=1.0, path=None)
        TrainingState(model, optimizer, take_step.scaler, ema and ema.module, failures).restore(start)
        how: Any = {"epoch": 0, "lr": build_schedule(cfg)(0.0), "global_step": 0}
        loss = take_step([collate([first])], num_samples=1, **how).sums()[0]
        log.info("one clip, forward and backward: loss %.3f", loss)
        few = [*itertools.islice(samples, NUM_TIMED_CLIPS)]
        if few:
            step = functools.partial(take_step, num_samples=len(few), **how)
            log_estimate(run, dataset, [sample.index for sample in few], step)
    else:
        with torch.no_grad(), autocast(run.device, run.dtype):
            logits = model.eval()(run.spec.normalize(first.views[:1].to(run.device)))
        loss = float(logits.float().logsumexp(dim=1))
        log.info("one clip, forward: logits of shape (1, %d)", cfg.MODEL.NUM_CLASSES)
    if not math.isfinite(loss):
        raise UserError(f"the first clip ({dataset.records[first.index].path}) gives {loss}")


class TrainingTime(NamedTuple):
    """How long a training takes about, by a few clips that were read and trained on."""

    clip_sec: float
    reading_share: float  # of it
    epoch_sec: float  # validation not included
    training_sec: float  # all epochs, and what only the first one pays


def log_estimate(
    run: Run, dataset: VideoDataset, indices: Sequence[int], step: Callable[[list[Batch]], object]
) -> None:
    """Log how long the training will take about."""
    time_of = time_training(run, dataset, indices, step)
    log.info(
        "time on this machine, about: %.2g s a clip (%.0f%% of it reading), %s an epoch, %s for %d epochs",
        time_of.clip_sec,
        100 * time_of.reading_share,
        *(timedelta(seconds=math.ceil(sec)) for sec in (time_of.epoch_sec, time_of.training_sec)),
        run.cfg.SOLVER.MAX_EPOCH,
    )


def time_training(
    run: Run,
    dataset: VideoDataset,
    indices: Sequence[int],
    step: Callable[[list[Batch]], object],
    *,
    repeats: int = 2,
) -> TrainingTime:
    """The time by these clips, read and trained on `repeats` times, of which the fastest counts.

    The first time includes what later epochs do not pay: decoding into a cache, the first step of this batch size.
    """
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        batch = collate([dataset[index] for index in indices])
        read = time.perf_counter()
        step([batch])
        seconds.append((read - started, time.perf_counter() - read))
    (first_reading, _), *later = seconds
    reading, training = min(later, key=sum)
    num_clips = run.cfg.TRAIN.REPEATED_AUG * len(dataset) / len(indices) / run.processes.world_size
    epoch = num_clips * (reading + training)
    whole = epoch * run.cfg.SOLVER.MAX_EPOCH + num_clips * max(0.0, first_reading - reading)
    return TrainingTime((reading + training) / len(indices), reading / (reading + training), epoch, whole)


def measure_training(loaded: LoadedConfig, *, repeats: int) -> tuple[TrainingTime, int]:
    """The time of a training on this process and its device, which writes nothing; and the clips of the timed steps.

    Weights are not loaded: they do not change the time. For `repeats` see `time_training`.

    Raises:
        UserError: what the training would raise.
    """
    cfg = loaded.cfg
    device = choose_device("cpu" if cfg.NUM_GPUS == 0 else "auto")
    processes = Processes(gpus=int(device.type != "cpu"), accelerator=device.type)
    output_dir = Path(cfg.OUTPUT_DIR)
    events = RunEvents(output_dir, tensorboard_dir=None, is_main=False)
    run = Run(loaded, processes, output_dir, choose_precision(cfg.PRECISION, device)[0], events)
    videos = load_list(cfg, "train")
    dataset = build_train_dataset(cfg, videos)
    model = build_model(cfg).to(device)
    freeze_parameters(model, cfg)
    take_step = build_train_step(run, model, build_optimizer(model, cfg), loss_weights(cfg, videos))
    batch = clips_per_pass(cfg, math.prod(dataset.spec.input_shape), 1, 1)
    indices = range(min(batch, cfg.GLOBAL_BATCH_SIZE, len(dataset)))
    step = functools.partial(take_step, num_samples=len(indices), epoch=0, lr=0.0, global_step=0)
    return time_training(run, dataset, indices, step, repeats=repeats), len(indices)
