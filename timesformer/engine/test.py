"""Test a checkpoint with all views, and write what it predicted."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from timesformer.datasets.build import build_eval_loader
from timesformer.datasets.records import VideoList
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.compiling import compile_model
from timesformer.engine.describe import describe_model
from timesformer.engine.load_weights import load_and_report
from timesformer.engine.setup import READ_BY_TRAINING, Run, warn_of_unused_keys
from timesformer.evaluation.evaluate import evaluate
from timesformer.evaluation.report import write_report
from timesformer.models.build import build_model
from timesformer.utils.errors import CheckpointError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)


def test(run: Run, videos: VideoList) -> None:
    """Score the videos; writes predictions.csv, results.json, missing_videos.csv and pictures."""
    cfg, processes = run.cfg, run.processes
    with torch.device("meta"):  # every weight comes from the file
        model = build_model(cfg)
    load_test_weights(run, model, videos)
    model.to(run.device)
    loader = build_eval_loader(cfg, videos, views=True, **processes.ranks)
    if not cfg.TRAIN.ENABLE:
        describe_model(run, model)
        warn_of_unused_keys(run, others=READ_BY_TRAINING)
    if cfg.MODEL.COMPILE:
        compile_model(model)
    with run.stop.heard():
        predictions = evaluate(run, model, loader, ensemble=cfg.DATA.ENSEMBLE_METHOD, title="test")
    run.warn_once(predictions.warnings)
    if processes.rank == 0:
        write_report(run, videos, loader.dataset, predictions)


def load_test_weights(run: Run, model: nn.Module, videos: VideoList) -> None:
    """Load `TEST.CHECKPOINT_FILE_PATH`, or the checkpoint of OUTPUT_DIR that `TEST.CHECKPOINT` names.

    Raises:
        CheckpointError: there is none, or it does not fit the model.
    """
    cfg = run.cfg
    path: str | Path | None = cfg.TEST.CHECKPOINT_FILE_PATH
    if not path:
        best = checkpoints.best_path(cfg.OUTPUT_DIR)
        path = best if cfg.TEST.CHECKPOINT == "best" else checkpoints.newest_checkpoint(cfg.OUTPUT_DIR)
        if path is None or not path.is_file():
            raise CheckpointError(
                f"no checkpoint to test: {path or 'none in ' + str(Path(cfg.OUTPUT_DIR) / 'checkpoints')}. "
                "Train first, or name one: TEST.CHECKPOINT_FILE_PATH FILE"
            )
    log.info("testing %s", path)
    load_and_report(run, model, path, videos.class_names, testing=True)
