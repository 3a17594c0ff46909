"""A folder of videos with one directory per class, split by sub-folders, by lists, or by fractions."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from fvcore.common.config import CfgNode

from timesformer.datasets.files import (
    LeftOut,
    RealPaths,
    composed,
    is_picture,
    is_video,
    list_folder,
    list_pictures,
    sub_folders,
    walk,
)
from timesformer.datasets.kinetics import Kinetics
from timesformer.datasets.list_files import Problem, raise_problems
from timesformer.datasets.records import (
    VideoList,
    VideoRecord,
    class_counts,
    load_class_names,
    shorten,
    wrong_num_classes,
)
from timesformer.datasets.splits import SPLITS, divide, divide_subjects, missing_classes, split_of_name
from timesformer.utils.console import printable
from timesformer.utils.errors import DataListError, VideoReadError
from timesformer.utils.registry import DATASETS
from timesformer.video.containers import first_video_stream, open_container

RUN_FILES = {"log.txt", "metrics.jsonl", "versions.json"}  # in the folder of a run, whose pictures are no videos


@DATASETS.register("folder")
@dataclass(kw_only=True)
class VideoFolder:
    """One split of a folder of classes.

    The split comes from `root/{train,val,test}/CLASS/` if there are such folders (see `split_of_name`), else from the
    lists `root/{train,val,test}.csv` if there are any, else from fractions of `root/CLASS/`: of each class, or of
    the subjects when a pattern finds them (see `divide_subjects`). Hashes decide: the split is the same on every
    machine.
    """

    root: str
    split: str  # train, val or test
    num_classes: int | str  # must be the number of class folders, or auto
    val_fraction: float = 0.1  # of each class, or of the subjects
    test_fraction: float = 0.2
    subject_pattern: str = ""  # regular expression whose first group is the subject in the path below `root`
    seed: int = 0  # another seed is another split by fractions
    separator: str = " "  # of lists, as `prefix`: see `Kinetics`
    prefix: str = ""
    class_names_path: str = ""  # file of class names; without it the folders in natural order are the classes

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> VideoFolder:
        """The split that `cfg` describes."""
        return cls(
            root=cfg.DATA.PATH_TO_DATA_DIR,
            split=split,
            num_classes=cfg.MODEL.NUM_CLASSES,
            val_fraction=cfg.FOLDER.VAL_FRACTION,
            test_fraction=cfg.FOLDER.TEST_FRACTION,
            subject_pattern=cfg.FOLDER.SUBJECT_PATTERN,
            seed=cfg.FOLDER.SEED,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
            prefix=cfg.DATA.PATH_PREFIX,
            class_names_path=cfg.DATA.CLASS_NAMES_PATH,
        )

    def load(self) -> VideoList:
        """List the videos of the split.

        Raises:
            DataListError: the folder does not have the classes or the split, or a subject is in two splits.
        """
        if not os.path.isdir(self.root):
            raise DataListError(f"DATA.PATH_TO_DATA_DIR is {self.root!r}, but should be the folder of the classes")
        names, parts = self._parts()
        self._check_subjects(parts)
        found = parts.get(self.split, VideoList([]))
        if not found.records:
            advice = {"train": "", "val": " (FOLDER.VAL_FRACTION)", "test": ", or set TEST.SPLIT val"}[self.split]
            sizes = ", ".join(f"{split} {len(part.records)}" for split, part in parts.items())
            raise DataListError(f"{self.root}: no videos for {self.split} (videos: {sizes}). Add some{advice}.")
        return VideoList(found.records, names, found.warnings)

    def _parts(self) -> tuple[list[str], dict[str, VideoList]]:
        """The class names, and the videos of every split."""
        present, left_out = sub_folders(self.root), LeftOut()
        folders: dict[str, str] = {}
        for name in present:
            if split := split_of_name(name):
                if split in folders:
                    raise DataListError(f"{self.root}: {folders[split]} and {name} both mean {split}: keep one")
                folders[split] = name
        lists = {s: f for s in SPLITS if os.path.isfile(f := os.path.join(self.root, f"{s}.csv"))}
        other_lists = [
            name for name in list_folder(self.root) if is_list(name) and name not in map("{}.csv".format, lists)
        ]
        left_out.add("lists (the names that are read: train.csv, val.csv, test.csv)", *other_lists)
        if "train" in folders and (len(folders) > 1 or len(present) == 1):
            left_out.add("folders beside the splits", *(name for name in present if name not in folders.values()))
            tops = {split: os.path.join(self.root, name) for split, name in folders.items()}
            names = self._class_names(tops["train"], left_out)
            return [*map(printable, names)], {split: self._scan(top, names, left_out) for split, top in tops.items()}
        if not lists:
            names = self._class_names(self.root, left_out)
            shown = [*map(printable, names)]
            return shown, self._divide(self._scan(self.root, names, left_out), shown)
        names = self._class_names(self.root, left_out, required=False)
        reader = Kinetics(data_dir=self.root, split=self.split, num_classes=self.num_classes)
        reader.prefix, reader.separator = self.prefix, self.separator
        videos = {split: self._with_subjects(reader.read(path, names)) for split, path in lists.items()}
        return [*map(printable, names)], videos

    def _class_names(self, folder: str, left_out: LeftOut, *, required: bool = True) -> list[str]:
        """Class names from the file of the user, else the sub-folders; [] where they are not required.

        The folder of a run is no class, nor, when there are too many, are folders without videos.
        """
        if self.class_names_path:
            return load_class_names(self.class_names_path, self.num_classes)
        present = sub_folders(folder)
        names = [name for name in present if not is_run(os.path.join(folder, name))]
        if len(names) != self.num_classes:
            names = [name for name in names if holds_videos(os.path.join(folder, name))]
        others = [name for name in present if name not in names]
        if len(names) == self.num_classes or (names and required and self.num_classes == "auto"):
            left_out.add("folders that are no classes (without videos, or a run's output)", *others)
            return names
        if not required:
            return []
        if not present:
            raise DataListError(f"{folder} has no folders: make one per class, with its videos in it")
        shown = ", ".join(shorten(names or present, 10)) + (
            f"; without videos: {', '.join(shorten(others, 5))}" if names and others else ""
        )
        raise wrong_num_classes(f"{folder} ({shown})", len(names or present), self.num_classes)

    def _scan(self, folder: str, names: Sequence[str], left_out: LeftOut) -> VideoList:
        """The videos below the class folders of `folder`, one record for each real file.

        Raises:
            DataListError: a folder is no class, a file is in two classes, or a folder has several picture series.
        """
        folders = {
            composed(name): name for name in sub_folders(folder)
        }  # another system may compose letters differently
        known = {composed(name) for name in names}
        unknown = [name for key, name in folders.items() if key not in known]
        if unknown := [name for name in unknown if not is_run(at := os.path.join(folder, name)) and holds_videos(at)]:
            of = self.class_names_path or "the training videos"
            raise DataListError(f"{folder}: folders that are no class of {of}: {unknown}")
        own = LeftOut()
        own.add("videos beside the class folders", *filter(is_video, list_folder(folder)))
        records: dict[str, VideoRecord] = {}  # by real path
        others: dict[str, str] = {}  # extension -> a file that is left out
        warnings: list[str] = []
        problems: list[Problem] = []
        real_path = RealPaths()
        for label, name in enumerate(names):
            top, count = os.path.join(folder, folders.get(composed(name), name)), len(records)
            source = os.path.relpath(top, self.root)
            for parent, files in walk(top, own):
                found = [VideoRecord(os.path.join(parent, file), label, source) for file in files if is_video(file)]
                try:
                    pictures = () if found else list_pictures(parent, own)
                except ValueError as error:
                    problems.append(
                        Problem(os.path.relpath(parent, self.root), str(error), "several picture series in one folder")
                    )
                    continue
                if pictures and parent == top:
                    warnings.append(f"{source}: {len(pictures)} pictures not in a folder per video, left out")
                elif pictures:
                    found = [VideoRecord(parent, label, source, pictures)]
                for file in files:
                    if not is_video(file) and not is_picture(file):
                        own.add("files of other types", extension := os.path.splitext(file)[1].lower())
                        others.setdefault(extension, os.path.join(parent, file))
                for record in found:
                    first = records.setdefault(real_path(record.path), record)
                    if first.label != label:
                        text = f"the same file as {self._below_root(first)}, of another class"
                        problems.append(Problem(self._below_root(record), text, "one file in two classes"))
                    elif first is not record:
                        own.add("links to videos that are listed already", self._below_root(record))
            if len(records) == count:
                warnings.append(f"{source}: a class folder without videos")
        raise_problems(folder, problems)
        warnings += left_out.lines(self.root) + own.lines(folder) + readable_types(others)
        return self._with_subjects(VideoList([*records.values()], warnings=warnings))

    def _with_subjects(self, videos: VideoList) -> VideoList:
        if not self.subject_pattern:
            return videos
        pairs = [(record, re.search(self.subject_pattern, self._below_root(record))) for record in videos.records]
        problems = [Problem(record.path, "no subject") for record, match in pairs if not (match and match[1])]
        raise_problems(self.root, problems, f"FOLDER.SUBJECT_PATTERN {self.subject_pattern!r} should match every path")
        return replace(videos, records=[replace(record, subject=match[1]) for record, match in pairs if match])

    def _below_root(self, record: VideoRecord) -> str:
        return os.path.relpath(record.path, self.root).replace(os.sep, "/")

    def _divide(self, videos: VideoList, names: Sequence[str]) -> dict[str, VideoList]:
        """The videos of each class by hash, or the subjects such that no split is without a class."""
        of_class: dict[object, set[str]] = defaultdict(set)
        of_subject: dict[str, Counter[int]] = defaultdict(Counter)
        for record in videos.records:
            if record.subject:
                of_subject[record.subject].update(class_counts([record]))
            else:
                of_class[record.label].add(self._below_root(record))
        fractions = {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction}
        split_of = divide_subjects(of_subject, seed=self.seed, **fractions)
        warnings = [*videos.warnings]
        if missing := set().union(*missing_classes(of_subject, split_of).values()):
            subjects = {label: sum(label in classes for classes in of_subject.values()) for label in sorted(missing)}
            shown = shorten([f"{names[label]} ({number} subjects)" for label, number in subjects.items()], 10)
            warnings.append(
                f"{self.root}: found no split by subjects with these classes in every part: {', '.join(shown)}. "
                "Record them with more subjects, or divide the videos of each class: FOLDER.SUBJECT_PATTERN ''"
            )
        for keys in of_class.values():
            split_of |= divide(keys, seed=self.seed, **fractions)
        parts = {split: VideoList([], warnings=warnings) for split in SPLITS}
        for record in videos.records:
            parts[split_of[record.subject or self._below_root(record)]].records.append(record)
        return parts

    def _check_subjects(self, parts: dict[str, VideoList]) -> None:
        splits_of: dict[str, set[str]] = defaultdict(set)
        for split, part in parts.items():
            for subject in {record.subject for record in part.records} - {""}:
                splits_of[subject].add(split)
        shared = [
            Problem(f"subject {subject!r}", f"is in {' and '.join(sorted(splits))}")
            for subject, splits in splits_of.items()
            if len(splits) > 1
        ]
        raise_problems(self.root, shared, "Move each subject to one split, or let FOLDER.*_FRACTION divide them.")


def is_run(folder: str) -> bool:
    """Whether `folder` is the output of a run."""
    return not RUN_FILES.isdisjoint(list_folder(folder))


def holds_videos(folder: str) -> bool:
    """Whether there is a video, or a folder of pictures, below `folder`."""
    return any(
        is_video(file) or (parent != folder and is_picture(file))
        for parent, files in walk(folder, LeftOut())
        for file in files
    )


def is_list(name: str) -> bool:
    """Whether a name is that of a list of some split."""
    stem, extension = os.path.splitext(name)
    return extension.lower() in (".csv", ".txt", ".tsv", ".lst") and bool(split_of_name(stem))


def readable_types(files: Mapping[str, str]) -> list[str]:
    """A line about those extensions (of files that were left out) whose file the decoder opens."""
    found = []
    for extension, path in files.items():
        with suppress(VideoReadError):
            if os.path.isfile(path):
                with open_container(path) as container:
                    first_video_stream(container, path)
                    found.append(extension)
    advice = "list such files in train.csv, val.csv and test.csv, or give them a video's extension"
    return [f"left out, although the decoder reads {' and '.join(found)}: to use them, {advice}"] if found else []
