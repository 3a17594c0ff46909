"""Something-Something v2: annotations in json; videos as frame folders with lists, or as video files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from fvcore.common.config import CfgNode

from timesformer.datasets.files import videos_by_stem
from timesformer.datasets.list_files import Problem, Table, base_folder, find_list, raise_problems
from timesformer.datasets.records import (
    VideoList,
    VideoRecord,
    load_class_names,
    shorten,
)
from timesformer.utils.errors import DataListError
from timesformer.utils.registry import DATASETS

PREFIX = "something-something-v2-"  # of the official files; those of the newer archive have none
FOLDERS = (".", "labels", "metadata")
ANNOTATIONS = {"train": "train.json", "val": "validation.json", "test": "test-answers.csv"}
ADVICE = "Put the annotations of the dataset there."
TEST_ADVICE = "The test videos have no labels, and published numbers are on validation: set TEST.SPLIT val"
FRAME_LIST_HEADER = "original_vido_id video_id frame_id path labels"  # misspelt so in the files in use
FRAME_COLUMNS = {"id": ("original_vido_id", "original_video_id", "video_id"), "path": ["path"], "frame": ["frame_id"]}


@dataclass(frozen=True)
class NumberedFrames(Sequence[str]):
    """Paths `{head}{number}{tail}` of consecutive numbers: SSv2's 7 million frame names in little memory."""

    head: str
    numbers: range
    digits: int
    tail: str

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(replace(self, numbers=self.numbers[index]))
        return f"{self.head}{self.numbers[index]:0{self.digits}d}{self.tail}"


def compact(paths: Sequence[str]) -> Sequence[str]:
    """The same paths as NumberedFrames if their numbers are consecutive, else as a tuple."""
    if match := re.fullmatch(r"(.*?)(\d+)(\.\w+)", paths[0], re.DOTALL):
        head, number, tail = match.groups()
        first = int(number)
        numbered = NumberedFrames(head, range(first, first + len(paths)), len(number), tail)
        if [*numbered] == [*paths]:
            return numbered
    return tuple(paths)


@DATASETS.register("ssv2")
@dataclass(kw_only=True)
class Ssv2:
    """One split of Something-Something v2."""

    data_dir: str  # folder of the json files and, for frames, of the frame lists train.csv, val.csv
    split: str  # train, val or test (which needs the test answers)
    num_classes: int | str = 174  # must be the number of labels, or auto
    input: str = "frames"  # or "videos"
    prefix: str = ""  # folder of the frame folders, or of the files {id}.webm or {id}.mp4

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> Ssv2:
        """The split that `cfg` describes."""
        return cls(
            data_dir=cfg.DATA.PATH_TO_DATA_DIR,
            split=split,
            num_classes=cfg.MODEL.NUM_CLASSES,
            input=cfg.SSV2.INPUT,
            prefix=cfg.DATA.PATH_PREFIX,
        )

    def load(self) -> VideoList:
        """Join annotations and frame lists (or video files).

        Raises:
            DataListError: files are missing or do not match.
        """
        names = load_class_names(self._find("labels.json"), self.num_classes)
        annotations, labels = self._annotations({name: label for label, name in enumerate(names)})
        records, warnings = self._frames(annotations, labels) if self.input == "frames" else (self._videos(labels), [])
        return VideoList(records, names, warnings)

    def _find(self, name: str, advice: str = ADVICE) -> str:
        return find_list(self.data_dir, [PREFIX + name, name], folders=FOLDERS, advice=advice)

    def _annotations(self, labels: dict[str, int]) -> tuple[str, dict[str, int]]:
        """Path of the annotation file, and video id to label."""
        path = self._find(ANNOTATIONS[self.split], TEST_ADVICE if self.split == "test" else ADVICE)
        if path.endswith(".json"):
            entries = [(str(e.get("id")), str(e.get("template"))) for e in _read_json(path)]
        else:
            table = Table(path)
            fields = [re.split("[;,]", text, maxsplit=1) for _, text in table.lines]
            entries = [(each[0], each[-1]) for each in fields]
            raise_problems(path, table.problems)
            entries = entries[not entries[0][0].isdecimal() :]  # without a header
        found: dict[str, int] = {}
        problems = []
        for video_id, template in entries:
            text = template.replace("[", "").replace("]", "").strip()
            if text not in labels:
                problems.append(Problem(f"id {video_id}", f"no label {text!r} in the labels' file", "no such label"))
            elif found.setdefault(video_id, labels[text]) != labels[text]:
                problems.append(Problem(f"id {video_id}", "it is there twice, with two labels"))
        raise_problems(path, problems)
        return path, found

    def _videos(self, labels: dict[str, int]) -> list[VideoRecord]:
        folder = self.prefix or os.path.join(self.data_dir, "20bn-something-something-v2")
        files = videos_by_stem(folder)
        paths = {i: files.get(i, os.path.join(folder, f"{i}.webm")) for i in labels}
        return [VideoRecord(paths[i], labels[i], f"{ANNOTATIONS[self.split]}: id {i}") for i in labels]

    def _frames(self, annotations: str, labels: dict[str, int]) -> tuple[list[VideoRecord], list[str]]:
        advice = "Without frame lists, read the video files: add SSV2.INPUT videos"
        path = find_list(self.data_dir, [f"{self.split}.csv"], folders=FOLDERS, advice=advice)
        frames: dict[str, tuple[int, Sequence[str]]] = {}
        for line, video_id, paths in read_frame_list(path):
            first, earlier = frames.get(video_id, (line, ()))  # there when its lines are not next to each other
            frames[video_id] = first, compact([*earlier, *paths])
        first_frames = [paths[0] for _, paths in frames.values()]
        base, warnings = base_folder(first_frames, list_path=path, prefix=self.prefix)
        for ids, text in (
            ([i for i in labels if i not in frames], f"videos of {annotations} have no frames in {path}"),
            ([i for i in frames if i not in labels], f"videos of {path} have no label in {annotations}"),
        ):
            warnings += [f"{len(ids)} {text}, left out: ids {', '.join(shorten(ids, 10))}"] if ids else []
        file, records = os.path.basename(path), []
        for i, (line, pictures) in frames.items():
            if i in labels:
                folder = os.path.join(base, os.path.dirname(pictures[0]))
                records.append(VideoRecord(folder, labels[i], f"{file}:{line}", _below(base, pictures)))
        if not records:
            raise DataListError("\n".join(["no video has both a label and frames:", *warnings]))
        return records, warnings


def _below(base: str, paths: Sequence[str]) -> Sequence[str]:
    if isinstance(paths, NumberedFrames):
        return replace(paths, head=os.path.join(base, paths.head))
    return tuple(os.path.join(base, path) for path in paths)


def read_frame_list(path: str) -> Iterator[tuple[int, str, list[str]]]:
    """First line, video id and frame paths in order, for each run of lines of one video in a frame list.

    Raises:
        DataListError: columns are missing, or lines do not have the fields of the header.
    """
    table = Table(path, FRAME_COLUMNS, optional=["frame"])
    if not table.header:
        line, text = next(table.lines)
        raise DataListError(f"{path}:{line}: the header is {text!r}, but should be {FRAME_LIST_HEADER!r}")
    has_numbers = "frame_id" in table.header.lower()  # without them, the frames are in order
    for video_id, group in groupby(table.rows(), key=lambda row: row[1][0]):
        frames = []
        for line, (_, frame, number) in group:
            if number.isdecimal() or not has_numbers:
                frames.append((int(number or 0), line, frame))
            else:
                table.report(f"frame_id {number!r} is not a whole number")
        frames.sort(key=lambda each: each[0])
        if frames:
            yield min(line for _, line, _ in frames), video_id, [frame for *_, frame in frames]
    raise_problems(path, table.problems, f"Each line should have the fields of the header: {table.header!r}")


def _read_json(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except ValueError as error:
        raise DataListError(f"{path} is not readable json: {error}") from error
    if not isinstance(content, list):
        raise DataListError(f"{path} should hold a json list, but holds a {type(content).__name__}")
    return content
