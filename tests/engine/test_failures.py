"""Clips that could not be read: listed once, and a reason to stop when there are too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.video_dataset import Failure
from timesformer.engine.failures import FailureLog
from timesformer.utils.errors import UserError


def failures(*numbers: int) -> list[Failure]:
    return [Failure(n, f"v{n}.mp4", f"train.csv:{n + 1}", "empty file") for n in numbers]


def test_each_video_is_listed_once_with_its_line_and_cause(tmp_path: Path) -> None:
    log = FailureLog(max_fraction=0.5, path=tmp_path / "failed.csv")
    log.add(failures(3, 4), requested=range(8))
    log.add(failures(3), requested=range(8))
    assert (tmp_path / "failed.csv").read_text().splitlines() == [
        "path,line,cause",
        "v3.mp4,train.csv:4,empty file",
        "v4.mp4,train.csv:5,empty file",
    ]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", []),
        ("path,li", []),
        ("path,line,cause\nv3.mp4,train.csv:4,empty file\nv4.mp4,tr", ["v3.mp4"]),
        ("path,line,cause\n\0\udcff,train.csv:4,empty file\n", ["\0\udcff"]),
    ],
)
def test_a_damaged_list_of_an_earlier_start_is_no_obstacle(tmp_path: Path, text: str, kept: list[str]) -> None:
    (tmp_path / "failed.csv").write_text(text, errors="surrogateescape")
    assert [*FailureLog(max_fraction=0.5, path=tmp_path / "failed.csv", keep=True).known] == kept


def test_too_many_are_judged_after_a_hundred_clips_or_at_the_end_of_the_epoch() -> None:
    log = FailureLog(max_fraction=0.1, path=None)
    log.add(failures(0, 1, 2, 90, 91), requested=range(8))  # 3 of 8, but too early to say; 90 and 91 were replacements
    with pytest.raises(UserError, match=r"3 of 8 clips.*\n  v0.mp4 \(train.csv:1\): empty file"):
        log.judge()
    log.add([], requested=range(8, 100))  # 3 of 100
    with pytest.raises(UserError, match="11 of 108"):
        log.add(failures(*range(8)), requested=range(8))
    log.start_epoch()
    log.add(failures(0), requested=range(100))
