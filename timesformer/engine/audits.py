"""The audits of a test: whether they are made, and what the training did with flips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from timesformer.config.load import config_from_settings
from timesformer.datasets.mirror import flip_label_map
from timesformer.datasets.records import VideoList
from timesformer.evaluation.audits import audit, worth_auditing
from timesformer.evaluation.evaluate import Predictions
from timesformer.utils.errors import ConfigError
from timesformer.utils.logging import get_logger
from timesformer.video.clip_spec import Views
from timesformer.video.variants import Variants

log = get_logger(__name__)


def choose_variants(cfg: CfgNode, num_videos: int) -> Variants | None:
    """The changed clips that this test scores too; None without audits."""
    views, setting = Views.from_config(cfg), cfg.TEST.AUDITS
    if cfg.DATA.MULTI_LABEL:
        return None
    num_views = views.num_crops * (1 if views.num_clips == "auto" else views.num_clips)
    if worth_auditing(setting, num_videos, num_views):
        return Variants(views=views, seed=cfg.RNG_SEED)
    if setting == "auto":
        log.info("audits            left out for %d videos of %s; TEST.AUDITS True makes them", num_videos, views)
    return None


def make_audits(
    videos: VideoList, predictions: Predictions, num_classes: int, training: Mapping[str, Any]
) -> dict[str, Any]:
    """What `audit` finds; {} without guesses.

    Args:
        videos: the list.
        predictions: of the test.
        num_classes: K.
        training: settings of the weights' training, by dotted key; {} where they are not known.
    """
    if predictions.guesses is None or not len(predictions.guesses):
        return {}
    flipped, mapped = trained_flips(config_from_settings(training), videos.class_names)
    return audit(
        [int(label) for label in predictions.labels],  # type: ignore[arg-type]  # one each
        predictions.guesses,
        videos.class_names,
        num_classes,
        people=videos.people(predictions.indices),
        flipped=flipped,
        mapped=mapped,
    )


def trained_flips(cfg: CfgNode, class_names: list[str]) -> tuple[list[int], dict[int, int]]:
    """Labels whose clips a training of this configuration flips at random, and the labels that these then get.

    Args:
        cfg: of the training.
        class_names: in label order; a map that names others counts as none.
    """
    data = cfg.DATA
    if not data.RANDOM_FLIP:
        return [], {}
    try:
        mapped = flip_label_map(data.FLIP_LABEL_MAP, class_names)
    except ConfigError:
        mapped = {}
    return [*(mapped if data.FLIP_ONLY_MAPPED else range(cfg.MODEL.NUM_CLASSES))], mapped
