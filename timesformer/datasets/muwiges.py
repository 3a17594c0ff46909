"""MuWiGes: twelve hand gestures before a wrist camera, as .avi files or frame folders at 15 fps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from timesformer.datasets.gestures.curves import CLASS_NAMES
from timesformer.datasets.kinetics import Kinetics
from timesformer.datasets.records import wrong_num_classes
from timesformer.utils.registry import DATASETS


@DATASETS.register("muwiges")
class MuWiGes(Kinetics):
    """Lists `data_dir/metadata/{train,val,test}.csv` (or in `data_dir` itself); labels 0..11 or G1..G12."""

    folders: ClassVar = ("metadata", ".")
    frame_fps: ClassVar = 15.0

    def class_names(self) -> list[str]:
        """Names of the twelve gestures, or those of the file given by the user.

        Raises:
            DataListError: the model has another number of classes, and no names of its own.
        """
        if not self.class_names_path and self.num_classes not in ("auto", len(CLASS_NAMES)):
            raise wrong_num_classes("MuWiGes", len(CLASS_NAMES), self.num_classes)
        return super().class_names() or [*CLASS_NAMES]

    def label_names(self, names: Sequence[str]) -> dict[str, int]:
        """The class names and their first words, G1 .. G12."""
        first_words = {name.split()[0]: label for label, name in enumerate(names)}
        return first_words | super().label_names(names)
