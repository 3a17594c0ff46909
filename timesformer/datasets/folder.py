"""A folder of videos with one directory per class, split by sub-folders, by lists, or by fractions."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fvcore.common.config import CfgNode

from timesformer.datasets.kinetics import Kinetics
from timesformer.datasets.list_files import raise_problems
from timesformer.datasets.records import (
    VIDEO_EXTENSIONS,
    VideoList,
    VideoRecord,
    class_counts,
    list_pictures,
    load_class_names,
    natural_key,
    shorten,
    wrong_num_classes,
)
from timesformer.datasets.splits import SPLITS, divide, divide_subjects, missing_classes
from timesformer.utils.errors import DataListError
from timesformer.utils.registry import DATASETS

FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@DATASETS.register("folder")
@dataclass(kw_only=True)
class VideoFolder:
    """One split of a folder of classes.

    The split comes from `root/{train,val,test}/CLASS/` if there are such folders, else from the lists
    `root/{train,val,test}.csv` if there are any, else from fractions of `root/CLASS/`: of each class, or of
    the subjects when a pattern finds them (see `divide_subjects`). Hashes decide: the split is the same on every
    machine.
    """

    root: str
    split: str  # train, val or test
    num_classes: int  # must be the number of class folders
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
        present = sub_folders(self.root)
        folders = {s: os.path.join(self.root, f) for s, names in FOLDERS.items() for f in names if f in present}
        lists = {s: f for s in SPLITS if os.path.isfile(f := os.path.join(self.root, f"{s}.csv"))}
        if "train" in folders and (len(folders) > 1 or len(present) == 1):
            names = self._class_names(folders["train"])
            return names, {split: self._scan(folder, names) for split, folder in folders.items()}
        if not lists:
            names = self._class_names(self.root)
            return names, self._divide(self._scan(self.root, names), names)
        names = self._class_names(self.root, required=False)
        reader = Kinetics(data_dir=self.root, split=self.split, num_classes=self.num_classes)
        reader.prefix, reader.separator = self.prefix, self.separator
        return names, {split: self._with_subjects(reader.read(path, names)) for split, path in lists.items()}

    def _class_names(self, folder: str, *, required: bool = True) -> list[str]:
        """Class names from the file of the user, else the sub-folders; [] where they are not required."""
        present = sub_folders(folder)
        if self.class_names_path:
            names = load_class_names(self.class_names_path, self.num_classes)
            if unknown := [name for name in present if required and name not in names]:
                raise DataListError(f"{folder}: folders that are no class of {self.class_names_path}: {unknown}")
            return names
        if len(present) == self.num_classes:
            return present
        if not required:
            return []
        if not present:
            raise DataListError(f"{folder} has no folders: make one per class, with its videos in it")
        raise wrong_num_classes(f"{folder} ({', '.join(shorten(present, 10))})", len(present), self.num_classes)

    def _scan(self, folder: str, names: Sequence[str]) -> VideoList:
        """The videos below the class folders of `folder`."""
        if unknown := [name for name in sub_folders(folder) if name not in names]:
            raise DataListError(f"{folder}: folders that are no class of the training videos: {unknown}")
        records: list[VideoRecord] = []
        warnings: list[str] = []
        for label, name in enumerate(names):
            top, count = os.path.join(folder, name), len(records)
            source = os.path.relpath(top, self.root)
            for parent, below, files in os.walk(top, followlinks=True):
                below[:] = sorted((f for f in below if f[0] != "."), key=natural_key)
                videos = sorted((f for f in files if f.lower().endswith(VIDEO_EXTENSIONS)), key=natural_key)
                records += [VideoRecord(os.path.join(parent, f), label, source) for f in videos]
                pictures = () if videos else list_pictures(parent)
                if pictures and parent == top:
                    warnings.append(f"{source}: {len(pictures)} pictures not in a folder per video, left out")
                elif pictures:
                    records.append(VideoRecord(parent, label, source, pictures))
            if len(records) == count:
                warnings.append(f"{source}: a class folder without videos")
        return self._with_subjects(VideoList(records, warnings=warnings))

    def _with_subjects(self, videos: VideoList) -> VideoList:
        if not self.subject_pattern:
            return videos
        pairs = [(record, re.search(self.subject_pattern, self._below_root(record))) for record in videos.records]
        problems = [f"no subject in {record.path}" for record, match in pairs if not (match and match[1])]
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
        shared = [f"subject {s!r} is in {' and '.join(sorted(at))}" for s, at in splits_of.items() if len(at) > 1]
        raise_problems(self.root, shared, "Move each subject to one split, or let FOLDER.*_FRACTION divide them.")


def sub_folders(folder: str) -> list[str]:
    """Names of the folders in `folder`, hidden ones excluded, in natural order."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    return sorted(names, key=natural_key)
