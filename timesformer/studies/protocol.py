"""The runs of a protocol: all clips of a dataset divided into folds, or its lists as they are with several seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from timesformer.datasets.build import load_list
from timesformer.datasets.manifest import FILE, ManifestRow, manifest_path, read_manifest, write_manifest
from timesformer.datasets.records import VideoList, VideoRecord, fingerprint, in_memory, shorten, split_missing
from timesformer.datasets.splits import SPLITS
from timesformer.engine.checkpoint import differences
from timesformer.evaluation.report import distinct_names
from timesformer.studies.folds import KINDS, LEAVES_ONE_OUT, make_folds
from timesformer.utils.console import count
from timesformer.utils.errors import ConfigError, DataListError, UserError

SETTINGS = "protocol.json"
# Keys besides those of a run's identity that runs of one protocol have in common.
_SHARED = {"SOLVER.MAX_EPOCH", "PRECISION", "MODEL.WEIGHTS", "TRAIN.CHECKPOINT_FILE_PATH", "TRAIN.FINETUNE",
           "TRAIN.EVAL_PERIOD", "TRAIN.EARLY_STOP_EPOCHS", "TEST.CHECKPOINT", "TEST.NUM_ENSEMBLE_VIEWS",
           "TEST.NUM_SPATIAL_CROPS", "DATA.ENSEMBLE_METHOD"}  # fmt: skip


@dataclass(frozen=True)
class FoldRun:
    """One run of a protocol."""

    name: str  # in tables
    folder: Path
    words: list[str]  # the settings on top of the protocol's config.yaml
    splits: dict[str, list[VideoRecord]]

    def results(self) -> dict[str, Any] | None:
        """Its results.json, if it was tested on this list to the end."""
        try:
            found = json.loads((self.folder / "results.json").read_text())
            return found if found["list"] == fingerprint(self.splits["test"]) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write_lists(self, class_names: Sequence[str]) -> None:
        """Write the manifest of a fold; the other runs of a protocol have no list of their own."""
        rows = [
            ManifestRow(
                path=os.path.abspath(record.path),
                label=class_names[record.label],  # type: ignore[index]
                subject=record.subject,
                scene=record.scene,
                split=split,
                fps=record.fps,
                start=record.start_sec,
                end=record.end_sec,
            )
            for split, records in self.splits.items()
            for record in records
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_manifest(str(self.folder / FILE), rows)


@dataclass(frozen=True)
class Protocol:
    """A protocol that can be run."""

    kind: str
    by: str  # subject or scene; "": clips are not grouped
    folder: Path
    cfg: CfgNode
    class_names: list[str]
    records: list[VideoRecord]  # each that is tested, once
    runs: list[FoldRun]
    warnings: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The protocol in a few words."""
        of = {
            "loso": "leave one subject out",
            "cross_scene": "leave one scene out",
            "seeds": "the same lists with several seeds",
        }
        grouped = f", grouped by {self.by}" if self.kind == "group_kfold" else ""
        return f"{of.get(self.kind, 'cross-validation')}{grouped}, {count(len(self.runs), 'run')}"

    @property
    def tested_list(self) -> str:
        """What identifies the clips and how they are divided: protocols with the same can be compared."""
        text = fingerprint(self.records)
        return text if self.kind == "seeds" else f"{self.kind} {self.by} {len(self.runs)} of {text}"

    def prepare(self) -> None:
        """Write the settings, the class names and the list of each run.

        Raises:
            UserError: the folder holds a protocol of other settings, whose differences are named, or a run.
        """
        own = {"kind": self.kind, "by": self.by, "runs": [run.name for run in self.runs], "list": self.tested_list}
        settings, file = self.folder / "config.yaml", self.folder / SETTINGS
        if file.is_file() and settings.is_file():
            before = json.loads(file.read_text())
            lines = [
                f"  {name}: {before.get(name)} there, {own[name]} here" for name in own if before.get(name) != own[name]
            ]
            lines += differences({"cfg": settings.read_text()}, self.cfg, {}, also=_SHARED)
            if lines:
                found = "\n".join(lines)
                raise UserError(
                    f"{self.folder} holds a protocol with other settings. What differs:\n{found}\n"
                    "Set these as they were there, or choose another --out"
                )
        elif settings.is_file():  # which is written last
            raise UserError(f"{self.folder} holds a run, which the protocol would write over. Choose another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(own, indent=2) + "\n")
        if self.kind != "seeds":
            names = "".join(f"{name}\n" for name in self.class_names)
            (self.folder / "class_names.txt").write_text(names, encoding="utf-8")
            for run in self.runs:
                run.write_lists(self.class_names)
        settings.write_text(self.cfg.dump())


def plan_folds(cfg: CfgNode, kind: str, folder: Path, *, by: str = "", num_folds: int = 5) -> Protocol:
    """All clips of the dataset's lists, divided into folds; each clip is tested once.

    Args:
        cfg: the configuration of the runs; its lists are read.
        kind: of `folds.KINDS`, but `seeds`.
        folder: of the protocol; the runs go into its folders fold_1, fold_2, ...
        by: "subject" or "scene", for `group_kfold`.
        num_folds: for `kfold` and `group_kfold`.

    Raises:
        UserError: clips without a person or scene, too few of them, or a dataset that cannot be divided.
    """
    check(cfg)
    by = by or KINDS[kind]
    videos = all_clips(cfg)
    groups = [getattr(record, by) for record in videos.records] if by else []
    if unknown := [record for record, group in zip(videos.records, groups, strict=False) if not group]:
        raise DataListError(
            f"{len(unknown)} of {count(len(videos.records), 'clip')} have no {by}, which --kind {kind} needs:\n"
            + "\n".join(shorten([f"  {record.path} ({record.source})" for record in unknown], 5))
            + f"\nFill the column `{by}` of a manifest (timesformer prepare), or use another --kind"
        )
    folds = make_folds(kind, [record.label for record in videos.records], groups, num_folds=num_folds)  # type: ignore[misc]
    names = distinct_names(videos.class_names or [str(label) for label in range(cfg.MODEL.NUM_CLASSES)])
    runs = []
    for number, fold in enumerate(folds, start=1):
        at = folder / f"fold_{number:0{len(str(len(folds)))}d}"
        words = {"TRAIN.DATASET": "manifest", "TEST.DATASET": "manifest", "TEST.SPLIT": "test", "DATA.PATH_PREFIX": ""}
        words |= {"DATA.PATH_TO_DATA_DIR": str(at), "DATA.CLASS_NAMES_PATH": str(folder / "class_names.txt")}
        splits = {split: [videos.records[index] for index in getattr(fold, split)] for split in SPLITS}
        runs.append(FoldRun(f"{by if kind in LEAVES_ONE_OUT else 'fold'} {fold.name}", at, _words(words, at), splits))
    warnings = [*videos.warnings]
    if kind == "kfold" and any(record.subject for record in videos.records):
        warnings.append(
            "clips of one person are in training and test of a fold: for new persons use --kind group_kfold"
        )
    return Protocol(kind, by, folder, cfg, names, videos.records, runs, warnings)


def plan_seeds(cfg: CfgNode, seeds: Sequence[str], folder: Path) -> Protocol:
    """The lists as they are, one run for each value of RNG_SEED.

    Raises:
        UserError: the lists have problems, or a seed is given twice.
    """
    check(cfg)
    if len({*seeds}) < max(1, len(seeds)):
        raise ConfigError(f"--seeds {' '.join(seeds)}: give whole numbers, each once")
    test = load_list(cfg, cfg.TEST.SPLIT, testing=True)
    runs = [
        FoldRun(f"seed {seed}", at := folder / f"seed_{seed}", _words({"RNG_SEED": seed}, at), {"test": test.records})
        for seed in seeds
    ]
    names = distinct_names(test.class_names or [str(label) for label in range(cfg.MODEL.NUM_CLASSES)])
    return Protocol("seeds", "", folder, cfg, names, test.records, runs, test.warnings)


def _words(settings: dict[str, str], folder: Path) -> list[str]:
    settings |= {"OUTPUT_DIR": str(folder), "TRAIN.AUTO_RESUME": "True"}
    return [word for pair in settings.items() for word in (pair[0], json.dumps(pair[1]) if pair[1] == "" else pair[1])]


def check(cfg: CfgNode) -> None:
    """Refuse what cannot be a protocol.

    Raises:
        ConfigError: several labels per clip, no training, no test, or a test of given weights.
    """
    if cfg.DATA.MULTI_LABEL:
        raise ConfigError("DATA.MULTI_LABEL True: a protocol needs one label per clip")
    for key, wrong in (("TRAIN.ENABLE", not cfg.TRAIN.ENABLE), ("TEST.ENABLE", not cfg.TEST.ENABLE)):
        if wrong:
            raise ConfigError(f"{key} False: each run of a protocol trains and is tested. Set {key} True")
    if path := cfg.TEST.CHECKPOINT_FILE_PATH:
        raise ConfigError(f"TEST.CHECKPOINT_FILE_PATH {path}: a protocol tests its own weights. Leave it out")
    if cfg.TRAIN.DATASET != cfg.TEST.DATASET:
        raise ConfigError(f"TRAIN.DATASET {cfg.TRAIN.DATASET} and TEST.DATASET {cfg.TEST.DATASET}: set both the same")


def all_clips(cfg: CfgNode) -> VideoList:
    """The clips of the dataset's train, val and test lists, each once.

    Raises:
        DataListError: a list has problems, or its clips are no files.
    """
    splits = [split for split in SPLITS if split != "test" or cfg.TEST.SPLIT == "test"]
    if cfg.TRAIN.DATASET == "manifest":
        used = {row.split for row in read_manifest(manifest_path(cfg.DATA.PATH_TO_DATA_DIR))}
        splits = [split for split in SPLITS if split in used]
    lists = [load_list(cfg, split) for split in splits]
    found: dict[tuple[str, float, float], VideoRecord] = {}
    for record in (record for videos in lists for record in videos.records):
        if in_memory(record):
            raise DataListError(f"the clips of {cfg.TRAIN.DATASET} are no files. Use --kind seeds")
        key = (os.path.abspath(record.path), record.start_sec, record.end_sec)
        if (earlier := found.setdefault(key, record)).label != record.label:
            raise DataListError(
                f"{record.path} has label {earlier.label} ({earlier.source}) and {record.label} ({record.source})"
            )
    present, missing = split_missing(found.values())
    warnings = [f"left out, for they do not exist: {count(len(missing), 'clip')}"] if missing else []
    return VideoList(present, lists[0].class_names, warnings)
