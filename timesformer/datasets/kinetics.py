"""Kinetics and everything listed like it (K400, K600, UCF, HMDB, your own): `train.csv val.csv test.csv`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fvcore.common.config import CfgNode

from timesformer.datasets.list_files import ListReader, find_list
from timesformer.datasets.records import VideoList, coverage_warnings, load_class_names
from timesformer.utils.registry import DATASETS

ADVICE = {
    "train": "Write one `path label` a line (timesformer/datasets/DATASET.md).",
    "val": "Hold a part of the training videos out for it (timesformer/datasets/DATASET.md).",
    "test": "To test on the validation list, add: TEST.SPLIT val",
}


@DATASETS.register("kinetics")
@dataclass(kw_only=True)
class Kinetics:
    """Lists `data_dir/{train,val,test}.csv` (or below `metadata/`); see `ListReader` for them and the arguments."""

    data_dir: str
    split: str
    num_classes: int
    prefix: str = ""
    separator: str = " "
    multi_label: bool = False
    class_names_path: str = ""

    folders: ClassVar[Sequence[str]] = (".", "metadata")  # of the lists
    frame_fps: ClassVar[float] = 0.0
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> Kinetics:
        """The split that `cfg` describes."""
        return cls(
            data_dir=cfg.DATA.PATH_TO_DATA_DIR,
            split=split,
            num_classes=cfg.MODEL.NUM_CLASSES,
            prefix=cfg.DATA.PATH_PREFIX,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
            multi_label=cfg.DATA.MULTI_LABEL,
            class_names_path=cfg.DATA.CLASS_NAMES_PATH,
        )

    def load(self) -> VideoList:
        """Read the list.

        Raises:
            DataListError: it is missing or has lines that cannot be used.
        """
        path = find_list(self.data_dir, [f"{self.split}.csv"], folders=self.folders, advice=ADVICE[self.split])
        names = self.class_names()
        reader = ListReader(
            num_classes=self.num_classes,
            separator=self.separator,
            prefix=self.prefix,
            roots=[self.data_dir],
            multi_label=self.multi_label,
            label_names=self.label_names(names),
            frame_fps=self.frame_fps,
            columns=self.columns,
            join=self.locate,
        )
        found = reader.read(path)
        if self.split == "train":
            found.warnings += coverage_warnings(found.records, self.num_classes, path)
        return VideoList(found.records, names, found.warnings)

    def class_names(self) -> list[str]:
        """Class names, [] when unknown."""
        return load_class_names(self.class_names_path, self.num_classes) if self.class_names_path else []

    def label_names(self, names: list[str]) -> dict[str, int]:
        """What may stand for a label in a list."""
        return {name: label for label, name in enumerate(names)}

    def locate(self, folder: str, path: str) -> str:
        """The path to open for `path` in a list with `columns`, which is relative to `folder`."""
        return os.path.join(folder, path)
