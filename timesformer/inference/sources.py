"""What a user names to predict, as records: files, folders, patterns, lists with or without labels, frame folders."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from timesformer.config import config_from_settings
from timesformer.datasets.build import load_list
from timesformer.datasets.files import VIDEO_EXTENSIONS, LeftOut, is_picture, is_video, natural_key, walk
from timesformer.datasets.kinetics import Kinetics
from timesformer.datasets.list_files import SEPARATORS, Table, base_folder
from timesformer.datasets.opening import as_record
from timesformer.datasets.records import VideoRecord
from timesformer.utils.errors import DataListError, UserError

LIST_EXTENSIONS = (".csv", ".tsv", ".txt", ".lst", ".list")


@dataclass(kw_only=True)
class _LabelledList(Kinetics):
    """A list of paths and labels, with or without a header."""

    columns = {  # noqa: RUF012  (of the base class)
        "path": ("path", "video", "file", "filename"),
        "label": ("label", "class", "class_name"),
        "start": ("start", "start_sec"),
        "end": ("end", "end_sec"),
    }


def find_videos(
    sources: Sequence[str], *, class_names: Sequence[str], multi_label: bool = False
) -> tuple[list[VideoRecord], list[str]]:
    """The videos that `sources` name, each once, and remarks.

    A file that does not exist stays, as one that cannot be read. The label is -1 where it is unknown. In a folder it
    is known where each video lies below a folder of the name of a class.

    Args:
        sources: video files, folders (searched to the bottom; one with pictures is a video), patterns such as
            "clips/*.mp4", and lists (.csv, .tsv, .txt): a path a line, or a path and a label.
        class_names: of the model, in the order of the scores.
        multi_label: lists give several labels per video.

    Raises:
        UserError: a folder without videos, or a list that cannot be used.
    """
    records: dict[tuple[str, float, float], VideoRecord] = {}
    repeated = []
    warnings: list[str] = []
    for source in sources:
        matches = [source] if os.path.exists(source) else sorted(glob.glob(source, recursive=True), key=natural_key)
        for path in matches or [source]:
            if os.path.isdir(path):
                found = _in_folder(path, class_names)
            elif path.lower().endswith(LIST_EXTENSIONS) and os.path.isfile(path):
                found, remarks = _in_list(path, class_names, multi_label)
                warnings += remarks
            else:
                found = [replace(as_record(path), source=source)]
            for record in found:
                key = (os.path.abspath(record.path), record.start_sec, record.end_sec)
                repeated += [record.path] if key in records else []
                records.setdefault(key, record)
    if repeated:
        warnings.append(f"{len(repeated)} videos were named more than once and count once, such as {repeated[0]}")
    return [*records.values()], warnings


def file_names(videos: Sequence[VideoRecord]) -> list[str]:
    """The name of what is written of each video, without extension: its path below the folder that all have in common.

    Where two would be the same the extension stays (a.avi and a.mp4), and parts of one video have their seconds.
    """
    paths = [os.path.abspath(video.path) for video in videos]
    top = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    full = [os.path.relpath(path, top) for path in paths]
    stems = [os.path.splitext(name)[0] for name in full]
    files, parts = Counter(stem for stem, _ in {*zip(stems, full, strict=True)}), Counter(full)
    found = []
    for video, stem, name in zip(videos, stems, full, strict=True):
        part = f"_{video.start_sec:g}-{video.end_sec or 'end'}" if parts[name] > 1 else ""
        found.append((name if files[stem] > 1 else stem) + part)
    return found


def validation_videos(settings: Mapping[str, Any]) -> list[VideoRecord]:
    """The validation list of the run that stored `settings`; [] where it is not on this machine."""
    if not os.path.isdir(str(settings.get("DATA.PATH_TO_DATA_DIR", ""))):
        return []
    try:
        return load_list(config_from_settings(settings), "val").records
    except UserError:
        return []


def _in_folder(folder: str, class_names: Sequence[str]) -> list[VideoRecord]:
    paths = [*_below(folder)]
    if not paths:
        endings = " ".join(VIDEO_EXTENSIONS)
        raise UserError(f"{folder} holds no videos and no folders of pictures. Videos end in {endings}")
    label_of = {name: label for label, name in enumerate(class_names)}
    top = os.path.dirname(os.path.abspath(folder))
    labels = []
    for path in paths:
        parents = os.path.relpath(os.path.abspath(path), top).split(os.sep)[:-1]
        labels.append(next((label_of[name] for name in reversed(parents) if name in label_of), -1))
    known = -1 not in labels
    pairs = zip(paths, labels, strict=True)
    return [replace(as_record(path, label if known else -1), source=folder) for path, label in pairs]


def _below(folder: str) -> Iterator[str]:
    """Videos and folders of pictures in `folder` and below it, in natural order; hidden ones are left out."""
    for parent, files in walk(folder, LeftOut()):
        videos = [name for name in files if is_video(name)]
        yield from (os.path.join(parent, name) for name in videos)
        if not videos and any(map(is_picture, files)):
            yield parent


def _in_list(path: str, class_names: Sequence[str], multi_label: bool) -> tuple[list[VideoRecord], list[str]]:
    lines = [*Table(path).lines]
    names = [text.strip('"') for _, text in lines]
    base, remarks = base_folder(names, list_path=path, prefix="")
    there = [os.path.exists(os.path.join(base, name)) for name in names]
    if any(there) or all(map(is_video, names[1:] or names)):  # lines are paths
        first = 1 if len(lines) > 1 and not there[0] and names[0].lower() in _LabelledList.columns["path"] else 0
        file = os.path.basename(path)
        pairs = zip(lines[first:], names[first:], strict=True)
        return [replace(as_record(os.path.join(base, n)), source=f"{file}:{at}") for (at, _), n in pairs], remarks
    problems = []
    for separator in SEPARATORS:
        reader = _LabelledList(
            data_dir="", split="", num_classes=len(class_names), separator=separator, multi_label=multi_label
        )
        try:
            found = reader.read(path, class_names)
        except DataListError as error:
            problems.append(error)
        else:
            return found.records, found.warnings
    raise min(problems, key=lambda error: "DATA.PATH_LABEL_SEPARATOR" in str(error))
