"""The dataset `gestures_wide`: clips to pretrain on, drawn in memory whenever they are read; there are no files."""

from __future__ import annotations

from dataclasses import dataclass

from fvcore.common.config import CfgNode

from timesformer.datasets.gestures.clips import FPS, WideClip
from timesformer.datasets.gestures.dataset import SPLITS
from timesformer.datasets.gestures.strokes import CLASS_NAMES
from timesformer.datasets.records import VideoList, VideoRecord, wrong_num_classes
from timesformer.utils.registry import DATASETS
from timesformer.utils.sizes import height_width

RENDERER_VERSION = 1  # to be raised by every change that alters a pixel
DEFAULT_FRAME_SIZE = (96, 120)  # (height, width) in pixels


@DATASETS.register("gestures_wide")
@dataclass
class WideGestures:
    """Lists the clips of one split. The splits differ in every random number, and in nothing else."""

    seed: int
    num_clips: int
    frame_size: tuple[int, int]  # (height, width) in pixels
    split: str

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> WideGestures:
        """GESTURES.NUM_CLIPS clips of GESTURES.SEED and GESTURES.FRAME_SIZE.

        Raises:
            DataListError: the model has another number of classes.
        """
        if cfg.MODEL.NUM_CLASSES not in ("auto", len(CLASS_NAMES)):
            raise wrong_num_classes("gestures_wide", len(CLASS_NAMES), cfg.MODEL.NUM_CLASSES)
        options, size = cfg.GESTURES, cfg.GESTURES.FRAME_SIZE
        frame_size = DEFAULT_FRAME_SIZE if size == "auto" else height_width(size)
        return cls(options.SEED, options.NUM_CLIPS[SPLITS.index(split)], frame_size, split)

    def load(self) -> VideoList:
        """One record per clip; its path says all that the pixels depend on."""
        height, width = self.frame_size
        folder = f"gestures_wide/v{RENDERER_VERSION}_seed{self.seed}_{height}x{width}_{self.split}"
        clips = (
            WideClip(self.seed, SPLITS.index(self.split), index, self.frame_size) for index in range(self.num_clips)
        )
        records = [
            VideoRecord(f"{folder}/{clip.index}", clip.label, f"gestures_wide {self.split}", clip, fps=FPS)
            for clip in clips
        ]
        return VideoList(records, list(CLASS_NAMES))
