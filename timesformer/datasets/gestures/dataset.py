"""The dataset `gestures`: 12 hand gestures of generated people, and clips without one, rendered into files once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
from filelock import FileLock
from fvcore.common.config import CfgNode
from tqdm import tqdm

from timesformer.datasets.gestures.curves import CLASS_NAMES
from timesformer.datasets.gestures.rendering import ENCODERS, render_clip, write_video
from timesformer.datasets.gestures.streams import render_idle
from timesformer.datasets.records import VideoList, VideoRecord, wrong_num_classes
from timesformer.distributed.stop import end_with_parent
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import ConfigError
from timesformer.utils.files import write_whole
from timesformer.utils.registry import DATASETS
from timesformer.utils.sizes import height_width

RENDERER_VERSION = 1  # to be raised by every change that alters a pixel
SPLITS = ("train", "val", "test")
DEFAULT_FRAME_SIZE, HARD_FRAME_SIZE = (84, 96), (120, 160)  # (height, width) in pixels
MANIFEST = "gestures.json"  # the settings a folder was rendered with
IDLE = "idle"  # name of the class without a gesture, the last one
MIN_CLIPS_PER_PROCESS = 24  # fewer are not worth starting a process for


class Clip(NamedTuple):
    """One video file: person `number` of split 0, 1 or 2 makes gesture `label`, or none."""

    split: int
    number: int
    label: int
    subject: str
    path: str  # relative to the dataset's folder
    take: int = 0  # of several idle clips


class Settings(NamedTuple):
    """All that the pixels depend on."""

    seed: int = 0  # of every random choice
    num_subjects: tuple[int, int, int] = (60, 10, 20)  # people in train, val and test; each makes every gesture once
    frame_size: tuple[int, int] = DEFAULT_FRAME_SIZE  # (height, width) in pixels, both even
    hard: bool = False  # clutter, little contrast and a small hand
    codec: str = "mpeg4"  # a key of `ENCODERS`
    idle: int = 0  # clips without a gesture of each person

    @property
    def class_names(self) -> list[str]:
        """The gestures, and "idle" where there are such clips."""
        return [*CLASS_NAMES, IDLE] if self.idle else [*CLASS_NAMES]

    def check(self) -> None:
        """Raise ConfigError for settings that cannot be rendered."""
        people, size, problems = [*self.num_subjects], [*self.frame_size], []
        if len(people) != 3 or min(people) < 1:
            problems.append(f"GESTURES.NUM_SUBJECTS {people}: give three numbers from 1 (train, val, test)")
        if len(size) != 2 or min(size) < 16 or any(side % 2 for side in size):
            problems.append(f"GESTURES.FRAME_SIZE {size}: give even [height, width] from 16 pixels")
        if self.codec not in ENCODERS:
            problems.append(f"GESTURES.CODEC {self.codec!r}: give one of {', '.join(ENCODERS)}")
        if problems:
            raise ConfigError("; ".join(problems))

    def manifest(self) -> str:
        """The settings and the renderer's version as JSON text."""
        settings = self._asdict()
        if not self.idle:  # as before there were such clips
            del settings["idle"]
        return json.dumps({"renderer_version": RENDERER_VERSION, **settings}, indent=2) + "\n"

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the manifest's hash."""
        return hashlib.sha256(self.manifest().encode()).hexdigest()[:12]

    def clips(self, split: int) -> Iterator[Clip]:
        """The clips of split 0, 1 or 2, person by person; people are numbered over all splits."""
        for number in range(self.num_subjects[split]):
            subject = f"S{sum(self.num_subjects[:split]) + number:03d}"
            start, suffix = f"{SPLITS[split]}/{subject}", ENCODERS[self.codec][0]
            for label in range(len(CLASS_NAMES)):
                yield Clip(split, number, label, subject, f"{start}_G{label + 1:02d}{suffix}")
            for take in range(self.idle):
                yield Clip(split, number, len(CLASS_NAMES), subject, f"{start}_idle{take + 1:02d}{suffix}", take)


@DATASETS.register("gestures")
@dataclass
class Gestures:
    """Lists the generated clips of one split, rendering what is missing first."""

    folder: Path
    settings: Settings
    split: str

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> Gestures:
        """The dataset of `GESTURES.*` in DATA.PATH_TO_DATA_DIR; when that is empty, in data/gestures/<fingerprint>.

        Raises:
            ConfigError: settings that cannot be rendered.
            DataListError: the model has another number of classes.
        """
        options, size = cfg.GESTURES, cfg.GESTURES.FRAME_SIZE
        if size == "auto":
            size = HARD_FRAME_SIZE if options.HARD else DEFAULT_FRAME_SIZE
        people, frame_size = tuple(options.NUM_SUBJECTS), height_width(size)
        settings = Settings(options.SEED, people, frame_size, options.HARD, options.CODEC, options.IDLE)
        settings.check()
        if cfg.MODEL.NUM_CLASSES != (found := len(settings.class_names)):
            raise wrong_num_classes("gestures", found, cfg.MODEL.NUM_CLASSES)
        return cls(Path(cfg.DATA.PATH_TO_DATA_DIR or f"data/gestures/{settings.fingerprint()}"), settings, split)

    def load(self) -> VideoList:
        """Records of the split; subjects are the generated people.

        Raises:
            ConfigError: the folder holds something else.
        """
        render_dataset(self.folder, self.settings)
        records = [
            VideoRecord(str(self.folder / clip.path), clip.label, f"{self.split}.csv:{line}", subject=clip.subject)
            for line, clip in enumerate(self.settings.clips(SPLITS.index(self.split)), start=1)
        ]
        return VideoList(records, self.settings.class_names, [])


def render_dataset(folder: Path, settings: Settings, *, processes: int | None = None) -> None:
    """Render the clips that `folder` lacks, and its lists.

    A folder that is complete is left as it is, an interrupted rendering continues, and processes that start at
    the same time wait for the first. The folder also reads as a `kinetics` dataset: train.csv, val.csv and
    test.csv hold `path label` lines with relative paths, class_names.txt the names in label order.

    Args:
        folder: new, empty, or made by this function with the same settings.
        settings: what the pixels depend on.
        processes: how many to render with; None: one for each CPU this process may use.

    Raises:
        ConfigError: settings that cannot be rendered, or a folder that holds something else.
    """
    settings.check()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _claim(folder, settings)
        clips = [clip for split in range(len(SPLITS)) for clip in settings.clips(split)]
        missing = [clip for clip in clips if not (folder / clip.path).is_file()]
        if missing:
            _render(folder, settings, missing, processes or available_cpus())
        lists = {"class_names.txt": "".join(f"{name}\n" for name in settings.class_names)}
        for split, name in enumerate(SPLITS):
            lists[f"{name}.csv"] = "".join(f"{clip.path} {clip.label}\n" for clip in settings.clips(split))
        for name, text in lists.items():
            if not (folder / name).is_file():
                write_whole(folder / name, text.encode())


def _claim(folder: Path, settings: Settings) -> None:
    """Write the manifest into a fresh folder; refuse a folder that holds something else."""
    manifest, wanted = folder / MANIFEST, settings.manifest()
    advice = f"Set DATA.PATH_TO_DATA_DIR to another folder (empty: a default one), or delete {folder}."
    if manifest.is_file():
        if (found := manifest.read_text()) != wanted:
            found, wanted = (" ".join(text.split()) for text in (found, wanted))
            raise ConfigError(f"{folder} holds gestures rendered with {found}, not {wanted}. {advice}")
    elif any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ConfigError(f"{folder} holds files that are not generated gestures (no {MANIFEST}). {advice}")
    else:
        write_whole(manifest, wanted.encode())


def _render(folder: Path, settings: Settings, clips: Sequence[Clip], processes: int) -> None:
    """Render `clips` in parallel, with a progress bar on a terminal and a line elsewhere."""
    for split in SPLITS:
        (folder / split).mkdir(exist_ok=True)
    for unfinished in folder.glob("*/.S*"):  # of an interrupted rendering; the lock is ours
        unfinished.unlink()
    processes = max(1, min(processes, len(clips) // MIN_CLIPS_PER_PROCESS, 60))  # Windows has no larger pools
    with tqdm(total=len(clips), desc=f"rendering gestures into {folder}", unit="clip", disable=None) as bar:
        if bar.disable:
            print(f"rendering {len(clips)} gesture clips into {folder} ({processes} processes)", flush=True)
        jobs = [folder] * len(clips), [settings] * len(clips), clips
        if processes == 1:
            for _ in map(_render_file, *jobs):
                bar.update()
            return
        # spawn, because forking a process that runs torch's threads can hang
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, spawn, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
            for _ in pool.map(_render_file, *jobs, chunksize=6):
                bar.update()


def _render_file(folder: Path, settings: Settings, clip: Clip) -> None:
    cv2.setNumThreads(1)
    render, last = (render_idle, clip.take) if clip.label == len(CLASS_NAMES) else (render_clip, clip.label)
    where = settings.seed, clip.split, clip.number, last
    frames = render(*where, frame_size=settings.frame_size, hard=settings.hard)
    write_video(folder / clip.path, frames, settings.codec)
