"""Examines lists of videos, and what a configuration would do with them; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from timesformer.curation import duplicates, list_checks, video_checks
from timesformer.curation.findings import Finding, Listed
from timesformer.curation.label_errors import Scored, label_findings
from timesformer.curation.small_videos import SmallVideo, read_small_videos
from timesformer.datasets.mirror import Pairs
from timesformer.datasets.records import VideoList, in_memory
from timesformer.video.clip_spec import ClipSpec, Views


@dataclass(frozen=True)
class Recipe:
    """What a configuration does with the videos."""

    spec: ClipSpec  # of the clips
    num_clips: int | str  # of a video in a test
    flips: bool  # in training
    flip_pairs: Pairs = ()
    flips_only_mapped: bool = False
    balances: bool = False  # classes of different size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Recipe:
        """The recipe of `cfg`."""
        data, flips = cfg.DATA, cfg.TRAIN.ENABLE and cfg.DATA.RANDOM_FLIP
        only_mapped = flips and data.FLIP_ONLY_MAPPED
        balances = cfg.TRAIN.BALANCE != "none" and not data.MULTI_LABEL
        num_clips = Views.from_config(cfg).num_clips
        return cls(ClipSpec.from_config(cfg), num_clips, flips, data.FLIP_LABEL_MAP, only_mapped, balances)


def examine(
    lists: Mapping[str, VideoList],
    *,
    recipe: Recipe | None = None,
    predictions: Sequence[Scored] = (),
    backend: str = "pyav",
    num_processes: int | None = None,
    show_progress: bool = False,
) -> list[Finding]:
    """Everything that is wrong with `lists`, errors first.

    Args:
        lists: by the name of the split.
        recipe: of the configuration; None: what depends on it is left out.
        predictions: of runs that did not train on the clips in them.
        backend: decoder of video files.
        num_processes: that read videos; None: one for each CPU that this process may use.
        show_progress: whether to show progress bars.

    Raises:
        UserError: `predictions` do not fit the lists.
    """
    names = list_checks.class_names(lists)
    found = list_checks.list_warnings(lists)
    found += list_checks.class_findings(lists, balanced=recipe is not None and recipe.balances)
    found += list_checks.people_findings(lists)
    if recipe and recipe.flips:
        found += list_checks.flip_findings(names, recipe.flip_pairs, only_mapped=recipe.flips_only_mapped)
    found += label_findings(lists, predictions, names)
    every = [Listed(split, record) for split, videos in lists.items() for record in videos.records]
    listed = [each for each in every if not in_memory(each.record)]
    records = [each.record for each in listed]
    reading: dict[str, Any] = {"backend": backend, "num_processes": num_processes, "show_progress": show_progress}
    number, digests = duplicates.NUM_FRAMES, video_checks.same_size(records)
    read = read_small_videos(records, num_frames=number, title="reading videos", digests=digests, **reading)
    videos = {index: video for index, video in enumerate(read) if isinstance(video, SmallVideo)}
    found += video_checks.unreadable_findings(listed, read)
    found += video_checks.constant_findings(listed, videos)
    found += video_checks.copy_findings(listed, videos, names, **reading)
    if recipe:
        found += video_checks.length_findings(listed, videos, recipe.spec, num_clips=recipe.num_clips)
    return sorted(found, key=lambda finding: finding.severity)
