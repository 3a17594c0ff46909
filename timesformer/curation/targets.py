"""The lists of a folder of clips, a list or a manifest, without a configuration."""

from __future__ import annotations

import os
from dataclasses import replace

from timesformer.curation.layouts import find_clips
from timesformer.datasets.files import natural_key
from timesformer.datasets.manifest import FILE, Manifest, read_manifest
from timesformer.datasets.records import VideoList
from timesformer.datasets.splits import SPLITS
from timesformer.utils.errors import DataListError

UNDIVIDED = "all"  # the name of the only list where nothing says the splits


def lists_of_folder(source: str) -> dict[str, VideoList]:
    """The videos of a folder in any layout, of a list or of a manifest, by split; else all in one list.

    Raises:
        DataListError: there are no videos or no classes, or a list has problems.
    """
    if manifest := _manifest(source):
        return manifest
    found = find_clips(source)
    names = sorted({clip.label for clip in found.clips}, key=natural_key)
    lists: dict[str, VideoList] = {}
    for split in (*SPLITS, ""):
        records = [
            replace(clip.record, label=names.index(clip.label), subject=clip.subject, scene=clip.scene)
            for clip in found.clips if clip.split == split
        ]  # fmt: skip
        if records:
            lists[split or UNDIVIDED] = VideoList(records, names)
    next(iter(lists.values())).warnings.extend(found.notes)
    return lists


def _manifest(source: str) -> dict[str, VideoList]:
    """The splits of a manifest; {} where `source` is none, or no video in it has a split."""
    path = os.path.join(source, FILE) if os.path.isdir(source) else source
    if not os.path.isfile(path):
        return {}
    try:
        rows = [row for row in read_manifest(path) if row.split]
    except DataListError:
        if os.path.basename(path) == FILE:
            raise
        return {}  # a list of another kind
    num_classes = len({label for row in rows for label in row.label.split(";")})
    several = any(";" in row.label for row in rows)
    used = {row.split for row in rows}
    return {
        split: Manifest(data_dir=path, split=split, num_classes=num_classes, multi_label=several).load()
        for split in SPLITS if split in used
    }  # fmt: skip
