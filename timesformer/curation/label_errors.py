"""Likely wrong labels, by the scores of models that did not train on the clips: confident learning.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70, 2021. A clip is
suspicious when a model is as confident of another class as it is, on average, of the clips with that label.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from timesformer.curation.findings import WARNING, Finding, Listed
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.utils.errors import UserError

MAX_SHARE = 0.1  # of the clips, that are suggested beyond those of the confident joint


class Scored(NamedTuple):
    """The clips in a file of predictions, and their scores of the classes, (n, K)."""

    file: str
    records: Sequence[VideoRecord]
    scores: np.ndarray


class LabelRanking(NamedTuple):
    """Clips in the order in which their labels should be looked at.

    Attributes:
        order: (n,) indices, the most suspicious clip first.
        margins: (n,) score of the label less the best score of another class, in -1 .. 1; by clip.
        likely: (n,) whether the label is likely wrong; by clip.
        suggested: (n,) the class that is most likely instead; by clip.
    """

    order: np.ndarray
    margins: np.ndarray
    likely: np.ndarray
    suggested: np.ndarray


def rank_labels(scores: np.ndarray, labels: np.ndarray) -> LabelRanking:
    """The ranking by normalised margin; likely errors are the off-diagonal of the confident joint (eq. 1).

    Args:
        scores: (n, K) probabilities, out of fold.
        labels: (n,) as they are given.
    """
    rows = np.arange(len(labels))
    of_label = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    suggested = others.argmax(axis=1)
    margins = of_label - others[rows, suggested]
    means = [of_label[labels == k].mean() if (labels == k).any() else np.inf for k in range(scores.shape[1])]
    confident = np.where(scores >= np.array(means), scores, -np.inf)  # (n, K)
    likely = np.isfinite(confident.max(axis=1)) & (confident.argmax(axis=1) != labels)
    order = np.lexsort((margins, ~likely))
    return LabelRanking(order, margins, likely, suggested)


def label_findings(
    lists: Mapping[str, VideoList], predictions: Sequence[Scored], names: Sequence[str]
) -> list[Finding]:
    """The clips of predictions whose labels are likely wrong, the most suspicious one first.

    Those of the confident joint, then others whose models prefer another class, up to a tenth of all clips.

    Args:
        lists: by the name of the split; their labels count where they list a clip, else those of the file.
        predictions: of runs that did not train on the clips in them.
        names: of the classes.

    Raises:
        UserError: another number of classes, or several labels per video.
    """
    listed = {_key(record): Listed(split, record) for split, videos in lists.items() for record in videos.records}
    clips: list[Listed] = []
    scores: list[np.ndarray] = []
    for file, records, of_file in predictions:
        if of_file.shape[1] != len(names):
            raise UserError(f"{file} has the scores of {of_file.shape[1]} classes, the lists {len(names)}")
        clips += [listed.get(_key(record), Listed(file, record)) for record in records]
        scores.append(of_file)
    if not clips:
        return []
    if any(isinstance(each.record.label, tuple) for each in clips):
        raise UserError("label errors are found with one label per video, these lists have several. Leave out --scores")
    labels = np.array([each.record.label for each in clips])
    ranking = rank_labels(np.concatenate(scores), labels)
    advice = "Look at them in this order, and correct the list where the label is wrong."
    return [
        Finding(
            WARNING,
            "likely label errors",
            f"{names[labels[index]]}, looks like {names[ranking.suggested[index]]}",
            advice,
            [clips[index]],
            likeness=float(ranking.margins[index]),
        )
        for rank, index in enumerate(ranking.order.tolist())
        if ranking.likely[index] or (ranking.margins[index] < 0 and rank < MAX_SHARE * len(clips))
    ]


def _key(record: VideoRecord) -> tuple[str, float, float]:
    return os.path.realpath(record.path), record.start_sec, record.end_sec
