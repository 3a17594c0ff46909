"""Test a checkpoint with all views, and write what it predicted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timesformer.datasets.build import build_eval_loader
from timesformer.datasets.records import VideoList
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.audits import choose_variants, make_audits
from timesformer.engine.compiling import compile_model
from timesformer.engine.describe import describe_model
from timesformer.engine.kernels import choose_kernels
from timesformer.engine.load_weights import load_and_report
from timesformer.engine.setup import Run, warn_of_unused_keys
from timesformer.evaluation.audits import audit_table
from timesformer.evaluation.report import write_report
from timesformer.models.build import build_model
from timesformer.utils.errors import CheckpointError, ConfigError
from timesformer.utils.logging import get_logger
from timesformer.video.clip_spec import Views
from timesformer.weights.load import LoadReport

log = get_logger(__name__)


def test(run: Run, videos: VideoList, *, train_videos: VideoList | None = None) -> None:
    """Score the videos; writes predictions.csv, results.json, missing_videos.csv, pictures, report.html.

    Args:
        run: the run.
        videos: to score.
        train_videos: the training list, if the run has it, for baselines to learn from.
    """
    cfg, processes = run.cfg, run.processes
    has_baselines, has_report = cfg.TEST.BASELINES and not cfg.DATA.MULTI_LABEL, cfg.TEST.REPORT
    with torch.device("meta"):  # every weight comes from the file
        model = build_model(cfg)
    videos, report = load_test_weights(run, model, videos)
    model.to(run.device)
    views, variants = Views.from_config(cfg), choose_variants(cfg, len(videos.records))
    build_loader = partial(build_eval_loader, cfg, videos, views=views, stop=run.stop, **processes.ranks)
    try:
        loader = build_loader()
    except ConfigError as error:
        if not cfg.TRAIN.ENABLE or cfg.DATA_LOADER.CACHE in ("none", "auto"):
            raise
        log.warning("%s\nThe test after this training reads its videos without a cache.", error)
        loader = build_loader(cached=False)
    if not cfg.TRAIN.ENABLE:
        describe_model(run, model)
        warn_of_unused_keys(run, ignore=("training",))
    how: Any = {"setting": cfg.MODEL.KERNELS, "device": run.device, "dtype": run.dtype}
    choose_kernels(model, clips=run.views_per_forward, recorded=report.kernels, **how)
    if cfg.MODEL.COMPILE:
        compile_model(model)
    with run.stop.heard():
        predictions = run.evaluate(model, loader, ensemble=views.ensemble, title="test", variants=variants)
    run.warn_once(predictions.warnings)
    if processes.rank != 0:
        return
    history = run.events.history()
    epoch, step = (max((row[name] for row in history), default=0) for name in ("epoch", "step"))
    audits = make_audits(videos, predictions, cfg.MODEL.NUM_CLASSES, report.settings)
    metrics, matrix = write_report(
        run.output_dir,
        title=f"{cfg.MODEL.MODEL_NAME}, {cfg.TEST.SPLIT}, {views}",
        split=cfg.TEST.SPLIT,
        videos=videos,
        dataset=loader.dataset,
        predictions=predictions,
        multi_label=cfg.DATA.MULTI_LABEL,
        audits=audits,
    )
    if audits:
        log.info("\n%s\n", "\n".join(audit_table(audits)))
        run.warn_once(audits["warnings"])
    run.events.record("test", epoch=epoch, step=step, **metrics)
    if matrix is not None:
        from timesformer.visualization.confusion import confusion_figure

        run.events.figure("test/confusion", partial(confusion_figure, matrix, videos.class_names), step)
    if has_baselines:
        from timesformer.engine.baselines import hold_against_baselines

        lists = {"test": videos} | ({"train": train_videos} if train_videos else {})
        hold_against_baselines(cfg, metrics["top1"], lists)
    if has_report:
        from timesformer.engine.html_report import leave_report

        leave_report(run.output_dir, [videos.records[index] for index in predictions.indices])


def load_test_weights(run: Run, model: nn.Module, videos: VideoList) -> tuple[VideoList, LoadReport]:
    """Load `TEST.CHECKPOINT_FILE_PATH`, or the checkpoint of OUTPUT_DIR that `TEST.CHECKPOINT` names.

    Returns:
        The videos, with the class names of the weights where the list has none; and what the weights state.

    Raises:
        CheckpointError: there is none, or it does not fit the model.
    """
    cfg = run.cfg
    path: str | Path | None = cfg.TEST.CHECKPOINT_FILE_PATH or checkpoints.tested_checkpoint(
        cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT
    )
    if path is None:
        raise CheckpointError(
            f"no {cfg.TEST.CHECKPOINT} checkpoint to test in {Path(cfg.OUTPUT_DIR) / 'checkpoints'}. "
            "Train first, or name one: TEST.CHECKPOINT_FILE_PATH FILE"
        )
    log.info("testing %s", path)
    report = load_and_report(run, model, path, videos.class_names, testing=True)
    if videos.class_names or len(report.class_names) != cfg.MODEL.NUM_CLASSES:
        return videos, report
    log.info("class names: those of %s, for the list has none", path)
    return replace(videos, class_names=report.class_names), report
