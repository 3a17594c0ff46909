"""What a run says about its data and model before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from timesformer.datasets.inspect import quick_look, span_advice
from timesformer.datasets.records import VideoList, class_counts
from timesformer.engine.setup import Run
from timesformer.models.contract import VideoModel
from timesformer.models.summary import summarize
from timesformer.utils.logging import get_logger

log = get_logger(__name__)


def describe_data(run: Run, splits: Mapping[str, VideoList]) -> None:
    """Log each list's size and warnings, and look at some videos of the first.

    A clip span that is longer than the typical video is a loud warning with the setting that mends it.
    """
    cfg = run.cfg
    if run.processes.rank != 0:
        return
    for split, videos in splits.items():
        log.info("%s: %d videos, %d classes", split, len(videos.records), len(class_counts(videos.records)))
        run.warn_once(videos.warnings)
    first = next(iter(splits.values()))
    report = quick_look(
        first.records,
        frame_sampler=run.spec.frame_sampler(),
        backend=cfg.DATA.DECODING_BACKEND,
    )
    rate = cfg.DATA.SAMPLING_RATE
    advice = span_advice(report, sampling_rate=rate, target_fps=1.0 if rate == "auto" else cfg.DATA.TARGET_FPS)
    run.warn_once([*report.warnings, *([advice] if advice else [])])


def describe_model(run: Run, model: VideoModel) -> None:
    """Log the model's name, input and counts."""
    if run.processes.rank != 0:
        return
    shape = " x ".join(map(str, model.input_shape[1:]))  # T, H, W
    log.info("%s, input %s: %s", run.cfg.MODEL.MODEL_NAME, shape, summarize(model))
