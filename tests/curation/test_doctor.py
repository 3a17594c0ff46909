"""The doctor takes what datasets list: frame folders, frames in memory, unreadable videos only."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.curation.clips import a_list
from tests.datasets.media import picture
from timesformer.curation.doctor import Recipe, examine
from timesformer.datasets.files import list_pictures
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.video.clip_spec import ClipSpec


def frame_folder(folder: Path, first: int) -> VideoRecord:
    folder.mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:03}.png"), picture(first + number))
    return VideoRecord(str(folder), 0, "list.csv:1", list_pictures(str(folder)))


def test_frame_folders_are_compared_by_the_content_of_their_pictures(tmp_path: Path) -> None:
    records = [frame_folder(tmp_path / name, first) for name, first in (("a", 0), ("b", 0), ("c", 90))]
    found = examine({"train": a_list(records)}, num_processes=1)
    (copies,) = [finding for finding in found if "copies" in finding.check]
    assert copies.check == "exact copies" and {Path(each.record.path).name for each in copies.videos} == {"a", "b"}


def test_frames_in_memory_are_not_read_and_a_list_of_unreadable_videos_is_no_crash() -> None:
    recipe = Recipe(ClipSpec(num_frames=8, sampling_rate=4, target_fps=30), 1, flips=True)
    made = VideoList([VideoRecord("made", 0, "", np.zeros((8, 16, 16, 3), np.uint8))] * 10, ["wave"])
    assert examine({"train": made}, recipe=recipe) == []
    missing = VideoList([VideoRecord("none.mp4", 0, "train.csv:1")] * 10, ["wave"])
    assert {finding.check for finding in examine({"train": missing}, recipe=recipe)} == {"unreadable videos"}
