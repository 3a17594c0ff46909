"""What a run says about its data and model before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from timesformer.datasets.balance import imbalance
from timesformer.datasets.build import balance
from timesformer.datasets.inspect import quick_look, span_advice
from timesformer.datasets.mirror import flip_warnings
from timesformer.datasets.records import VideoList, class_counts, coverage_warnings
from timesformer.engine.setup import Run
from timesformer.models.contract import VideoModel
from timesformer.models.summary import ModelSummary, summarize
from timesformer.utils.logging import get_logger

log = get_logger(__name__)


def describe_data(run: Run, splits: Mapping[str, VideoList]) -> None:
    """Log each list's size and warnings, and look at some videos of the first.

    Loud warnings, with the settings that mend them: classes without a video, flips that turn clips of a class into
    another one, and a clip span that is longer than the typical video.
    """
    cfg = run.cfg
    if run.processes.rank != 0:
        return
    for split, videos in splits.items():
        log.info("%s: %d videos, %d classes", split, len(videos.records), len(class_counts(videos.records)))
        empty = coverage_warnings(videos.records, cfg.MODEL.NUM_CLASSES, f"{split} list", videos.class_names)
        run.warn_once([*videos.warnings, *empty])
    if cfg.TRAIN.ENABLE and (chosen := balance(cfg, splits["train"])) != "none":
        ratio = imbalance(splits["train"].records)
        log.info("TRAIN.BALANCE %s: the largest class has %.3g times the videos of the smallest", chosen, ratio)
    if cfg.TRAIN.ENABLE and cfg.DATA.RANDOM_FLIP:
        only_mapped, names = cfg.DATA.FLIP_ONLY_MAPPED, splits["train"].class_names
        run.warn_once(flip_warnings(names, cfg.DATA.FLIP_LABEL_MAP, only_mapped=only_mapped))
    first = next(iter(splits.values()))
    report = quick_look(
        first.records,
        frame_sampler=run.spec.frame_sampler(),
        backend=cfg.DATA.DECODING_BACKEND,
    )
    rate = cfg.DATA.SAMPLING_RATE
    fps = 1.0 if rate == "auto" else cfg.DATA.TARGET_FPS
    advice = span_advice(report, sampling_rate=rate, target_fps=fps, num_frames=run.spec.num_frames)
    run.warn_once([*report.warnings, *([advice] if advice else [])])


def describe_model(run: Run, model: VideoModel) -> ModelSummary:
    """Log the model's name, input and counts, which it returns."""
    summary, shape = summarize(model), " x ".join(map(str, model.input_shape[1:]))  # T, H, W
    if run.processes.rank == 0:
        log.info("%s, input %s: %s", run.cfg.MODEL.MODEL_NAME, shape, summary)
    return summary
