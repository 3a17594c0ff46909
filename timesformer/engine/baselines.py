"""Baselines of a run's lists: computed, kept in baseline.json, and held against the model that was tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.datasets.build import build_plain_loader
from timesformer.datasets.records import VideoList, fingerprint, shorten
from timesformer.evaluation.baselines import (
    HANDS,
    MIDDLE,
    MOTION,
    SPEC,
    Examples,
    Score,
    read_clips,
    read_landmarks,
    score_features,
    score_majority,
)
from timesformer.utils.console import count
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.logging import get_logger
from timesformer.video.hand_landmarks import HandFinder
from timesformer.video.readers import resolve_backend

log = get_logger(__name__)

FILE = "baseline.json"  # in OUTPUT_DIR
MAX_VIDEOS = 2000  # of both lists together, up to which a test computes what it does not find


def compute_baselines(
    cfg: CfgNode, train: VideoList, test: VideoList, *, hands: HandFinder | None = None
) -> list[Score]:
    """Learn from the training list, score the test list, and write OUTPUT_DIR/baseline.json.

    Args:
        cfg: the configuration.
        train: the list to learn from.
        test: the list to score.
        hands: also the baseline of hand landmarks, which takes longer than the others.

    Raises:
        UserError: DATA.MULTI_LABEL, no video that can be read, or a training list of one class.
    """
    if cfg.DATA.MULTI_LABEL:
        raise ConfigError(
            "the baselines need one label per video, found DATA.MULTI_LABEL True. If each video has one label, type "
            "DATA.MULTI_LABEL False"
        )
    bar = sys.stderr.isatty()
    clips = [
        read_clips(build_plain_loader(cfg, videos, spec=SPEC), videos.records, show_progress=bar)
        for videos in (train, test)
    ]
    _log_failures(clips)
    scores = [score_majority(*clips), *(score_features(name, *clips) for name in (MIDDLE, MOTION))]
    if hands:
        backend = resolve_backend(cfg.DATA.DECODING_BACKEND)
        marks = [read_landmarks(each.records, hands, backend=backend, show_progress=bar) for each in (train, test)]
        scores.append(score_features(HANDS, *marks))
    lists = {"train": fingerprint(train.records), "test": fingerprint(test.records)}
    if not hands:  # those of an earlier call cost minutes
        scores += [score for score in read_baselines(cfg.OUTPUT_DIR, lists) if score.name == HANDS]
    content = {
        "split": cfg.TEST.SPLIT,
        "lists": lists,
        "scored": len(clips[1].labels),
        "baselines": [asdict(score) for score in scores],
    }
    path = Path(cfg.OUTPUT_DIR) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Set another OUTPUT_DIR") from error
    return scores


def _log_failures(clips: Sequence[Examples]) -> None:
    for part, examples in zip(("train", "test"), clips, strict=True):
        if failures := examples.failures:
            lines = "\n".join(f"  {line}" for line in shorten([str(failure) for failure in failures], 10))
            log.warning("baselines: %s of the %s list not read:\n%s", count(len(failures), "video"), part, lines)


def read_baselines(folder: str | Path, fingerprints: Mapping[str, str]) -> list[Score]:
    """The scores in `folder`/baseline.json if they are of the lists ("test", maybe "train") of these, else []."""
    try:
        content = json.loads((Path(folder) / FILE).read_text())
        if any(content["lists"][split] != known for split, known in fingerprints.items()):
            return []
        return [Score(**score) for score in content["baselines"]]
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or one of another version
        return []


def hold_against_baselines(cfg: CfgNode, top1: float, lists: Mapping[str, VideoList]) -> None:
    """Log the baselines of the lists, and warn of a model that is not better than the best one; never fails.

    What OUTPUT_DIR/baseline.json does not hold is computed, but for hand landmarks, when the run has a training list
    and the lists are small.

    Args:
        cfg: the configuration.
        top1: of the model, in percent.
        lists: "test", the list that was scored, and "train" where the run has it.
    """
    command = "`timesformer baseline` computes them"
    num_videos = sum(len(videos.records) for videos in lists.values())
    try:
        known = {split: fingerprint(videos.records) for split, videos in lists.items()}
        scores = read_baselines(cfg.OUTPUT_DIR, known)
        if not scores and "train" not in lists:
            log.info("baselines         not known without the training list; %s", command)
        elif not scores and num_videos > MAX_VIDEOS:
            log.info("baselines         left out, %d videos are more than %d; %s", num_videos, MAX_VIDEOS, command)
        else:
            scores = scores or compute_baselines(cfg, lists["train"], lists["test"])
            shown = ", ".join(f"{score.name} {score.top1:.1f}%" for score in scores)
            log.info("baselines         %s (%s)", shown, Path(cfg.OUTPUT_DIR) / FILE)
            if line := comparison(top1, scores):
                log.warning("%s", line)
    except UserError as error:
        log.warning("no baselines: %s", error)
    except Exception as error:  # a test that is done must not fail here
        log.warning("no baselines: %s: %s", type(error).__name__, error)


def comparison(top1: float, scores: Sequence[Score]) -> str:
    """What to say of a model with this accuracy; "" when it is above the 95% interval of the best baseline."""
    best = max(scores, key=lambda score: score.top1)
    known = (
        f"{best.method}: {best.top1:.1f}% [{best.low:.1f}, {best.high:.1f}] in {count(round(best.seconds), 'second')}"
    )
    if top1 <= best.top1:
        return f"the model ({top1:.1f}%) is not better than {known}"
    return f"the model ({top1:.1f}%) is not clearly better than {known}" if top1 <= best.high else ""
