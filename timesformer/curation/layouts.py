"""Finds the clips of a folder as people keep it: folders of classes, people and splits, or lists."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from timesformer.curation.levels import labels_in_names, level_roles
from timesformer.curation.lists import find_lists, read_lists
from timesformer.datasets.files import (
    LeftOut,
    RealPaths,
    is_picture,
    is_video,
    list_pictures,
    sub_folders,
    walk,
)
from timesformer.datasets.folder import is_run
from timesformer.datasets.records import VideoRecord, shorten
from timesformer.datasets.splits import split_of_name
from timesformer.utils.errors import DataListError

_WORDS = {"": "folder", "split": "SPLIT", "label": "CLASS", "subject": "PERSON", "scene": "SCENE"}


@dataclass(frozen=True)
class Clip:
    """One video as it was found."""

    record: VideoRecord  # what opens it; its label is not set
    name: str  # the path below the folder, with /: what patterns are searched in
    label: str = ""  # "" when unknown
    split: str = ""
    subject: str = ""
    scene: str = ""


@dataclass
class Found:
    """All videos of a folder."""

    layout: str  # such as "PERSON/CLASS/video"
    clips: list[Clip]
    notes: list[str] = field(default_factory=list)  # what was left out


def find_clips(source: str, *, label_pattern: str = "") -> Found:
    """Every video that `source`, a folder or a list, has, with the label and split that its place or list gives.

    Args:
        source: the folder, or one list.
        label_pattern: regular expression that finds the class in a path below `source`, where folders do not say it.

    Raises:
        DataListError: there are no videos, or no classes.
    """
    if not os.path.exists(source):
        raise DataListError(f"{source!r} does not exist: name the folder of the videos, or a list of them")
    lists = [source] if os.path.isfile(source) else find_lists(source)
    found = _from_lists(source, lists) if lists else _from_folders(source)
    if label_pattern:
        found.clips = [
            replace(clip, label=text)
            for clip, text in zip(
                found.clips, matches("--label", label_pattern, [c.name for c in found.clips]), strict=True
            )
        ]
    elif without := [clip.name for clip in found.clips if not clip.label]:
        advice = "Give each class a folder, or the part of the path that is the class: --label REGEX"
        if len(without) == len(found.clips):
            raise DataListError(f"{source}: nothing says the classes of videos such as {without[0]}. {advice}")
        found.notes.append(
            f"left out: {len(without)} videos beside the class folders: {', '.join(shorten(without, 3))}"
        )
        found.clips = [clip for clip in found.clips if clip.label]
    labels = {clip.label for clip in found.clips}
    if len(labels) < 2:
        advice = "Name the folder that holds one folder per class, or the part of the path that is the class: --label"
        raise DataListError(f"{source}: {len(found.clips)} videos of {len(labels)} class {[*labels]}. {advice}")
    return found


def matches(option: str, pattern: str, names: Sequence[str]) -> list[str]:
    """The first group of `pattern` (without one, all of the match) in each of `names`, paths below the folder.

    Raises:
        DataListError: it is not valid, or a name has no match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataListError(f"{option} {pattern!r} is not a regular expression: {error}") from error
    found = [compiled.search(name) or compiled.search(f"/{name}") for name in names]
    texts = [(match[1] if compiled.groups else match[0]) or "" if match else "" for match in found]
    if missed := [name for name, text in zip(names, texts, strict=True) if not text]:
        shown = "\n  ".join(shorten(missed, 5))
        raise DataListError(f"{option} {pattern!r} finds nothing in {len(missed)} of {len(names)} paths:\n  {shown}")
    return texts


def _from_lists(source: str, lists: Sequence[str]) -> Found:
    root = source if os.path.isdir(source) else os.path.dirname(source) or "."
    rows, notes = read_lists(lists, root)
    left_out, clips = LeftOut(), []
    for row in rows:
        frames: tuple[str, ...] = ()
        if not is_video(row.path) and os.path.isdir(row.path):
            frames = _pictures(row.path, left_out)
        record = VideoRecord(row.path, -1, row.source, frames)
        clips.append(Clip(record, _below(row.path, root), row.label, row.split, row.subject, row.scene))
    listed = {os.path.realpath(clip.record.path) for clip in clips}
    if os.path.isdir(source):
        files = (os.path.join(parent, name) for parent, names in walk(root, LeftOut()) for name in names)
        unlisted = [path for path in files if is_video(path) and os.path.realpath(path) not in listed]
        left_out.add("videos that the lists do not name", *(_below(path, root) for path in unlisted))
    names = ", ".join(os.path.basename(path) for path in lists)
    return Found(f"lists: {names}", clips, notes + left_out.lines(root))


def _from_folders(root: str) -> Found:
    left_out = LeftOut()
    records = _scan(root, left_out)
    names = [_below(record.path, root) for record in records]
    folders = [name.split("/")[:-1] for name in names]
    roles = level_roles(folders, [os.path.splitext(os.path.basename(name))[0] for name in names])
    clips = [_clip(record, name, parts, roles) for record, name, parts in zip(records, names, folders, strict=True)]
    layout = "/".join([*(_WORDS[role] for role in roles), "video"])
    if "label" not in roles and (labels := labels_in_names(names)):
        clips = [replace(clip, label=label) for clip, label in zip(clips, labels, strict=True)]
        layout += ", the class in the names of the files"
    if "split" in roles and (others := [clip.name for clip in clips if not clip.split]):
        left_out.add("videos beside the folders of the splits", *others)
        clips = [clip for clip in clips if clip.split]
    return Found(layout, clips, left_out.lines(root))


def _scan(root: str, left_out: LeftOut) -> list[VideoRecord]:
    """The video files and frame folders below `root`, each real one once.

    Raises:
        DataListError: there are none.
    """
    found: dict[str, VideoRecord] = {}
    real_path, runs = RealPaths(), list[str]()
    for parent, files in walk(root, left_out):
        if parent.startswith(tuple(runs)):
            continue
        if is_run(parent):
            runs.append(os.path.join(parent, ""))
            left_out.add("folders of runs", _below(parent, root))
            continue
        records = [VideoRecord(os.path.join(parent, file), -1, file) for file in files if is_video(file)]
        if not records and parent != root and sum(map(is_picture, files)) > 1 and not sub_folders(parent):
            pictures = _pictures(parent, left_out)
            records = [VideoRecord(parent, -1, parent, pictures)] if pictures else []
        for record in records:
            if found.setdefault(real_path(record.path), record) is not record:
                left_out.add("links to videos that are listed already", _below(record.path, root))
    if not found:
        why = f"{root}: no videos below it, no folders of pictures, and no list of videos that are there."
        raise DataListError("\n".join([why, *left_out.lines(root)]))
    return [*found.values()]


def _clip(record: VideoRecord, name: str, folders: Sequence[str], roles: Sequence[str]) -> Clip:
    values = {role: folder for role, folder in zip(roles, folders, strict=False) if role}
    if "split" in values:
        values["split"] = split_of_name(values["split"])
    return Clip(record, name, **values)


def _pictures(folder: str, left_out: LeftOut) -> tuple[str, ...]:
    """The pictures of a frame folder; () with a note where it has none, or several series."""
    try:
        pictures = list_pictures(folder, left_out)
    except ValueError as error:
        left_out.add(f"folders of pictures ({error})", folder)
        return ()
    if not pictures:
        left_out.add("folders without pictures", folder)
    return pictures


def _below(path: str, root: str) -> str:
    """`path` below `root`, with /; the whole path when it is elsewhere."""
    below = os.path.relpath(path, root).replace(os.sep, "/")
    return os.path.abspath(path).replace(os.sep, "/") if below.startswith("../") else below
