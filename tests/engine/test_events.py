"""What a run says of its own speed, and rows of metrics that outlive crashes and full disks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timesformer.engine.events import Progress, RunEvents, data_advice


@pytest.mark.parametrize(
    ("share", "workers", "cached", "message"),
    [
        (0.06, 4, False, "data loading takes 6% of the step time"),
        (0.2, 2, False, "data loading takes 20% of the step time; to speed it up: DATA_LOADER.NUM_WORKERS 7 (now 2), "
                        "or DATA_LOADER.CACHE memory or disk (small datasets), or smaller video files (short side 256, "
                        "a keyframe every 12 frames)"),
        (0.9, 7, True, "data loading takes 90% of the step time; to speed it up: fewer augmentations"),
    ],
)  # fmt: skip
def test_slow_data_comes_with_what_to_change(share: float, workers: int, cached: bool, message: str) -> None:
    assert data_advice(share, num_workers=workers, num_cpus=8, cached=cached) == message


@pytest.mark.parametrize(("filling", "slow"), [(0, 10), (10, 10), (30, 30)])
def test_the_share_is_reported_once_and_without_the_start(
    filling: int, slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("timesformer.engine.events.time.perf_counter", lambda: now)
    progress = Progress(total_steps=200, done_steps=100, is_main=False, filling=filling)
    shares = []
    for step in range(1, 81):
        now += 5.0 if step <= slow else 1.0
        progress.advance(clips=2, waited_sec=4.0 if step <= slow else 0.25)
        if step % 10 == 0:
            progress.rates()
            now += 1000.0  # validation
            progress.rates()
        shares.append(progress.settled_wait_share())
    assert [(step, share) for step, share in enumerate(shares, start=1) if share is not None] == [(50, 0.25)]


def test_half_a_line_glues_no_rows_and_the_same_test_is_recorded_once(tmp_path: Path) -> None:
    events = RunEvents(tmp_path, tensorboard_dir=None, is_main=True)
    events.record("train", epoch=1, step=3, loss=1.0)
    for _ in range(2):
        events.record("test", epoch=1, step=3, top1=50.0)
    events.record("test", epoch=1, step=3, top1=75.0)  # of another checkpoint
    with events.path.open("a") as file:
        file.write('{"kind": "train", "ep')
    events.record("train", epoch=2, step=6, loss=0.5)
    rows = [(row["kind"], row["step"]) for row in events.history()]
    assert rows == [("train", 3), ("test", 3), ("test", 3), ("train", 6)]
    events.start_at(epoch=1, step=3)
    assert [json.loads(line)["kind"] for line in events.path.read_text().splitlines()] == ["train"]


def test_rows_that_cannot_be_written_are_reported_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[str] = []
    monkeypatch.setattr("timesformer.engine.events.log.error", lambda text, *values: reports.append(text % values))
    events = RunEvents(tmp_path / "run", tensorboard_dir=None, is_main=True)
    (tmp_path / "run").write_text("a file where the folder was")
    for step in (1, 2):
        events.record("train", epoch=1, step=step, loss=1.0)
    assert len(reports) == 1 and "metrics.jsonl cannot be written" in reports[0]
    (tmp_path / "run").unlink()
    events.close()
    assert [row["step"] for row in events.history()] == [1, 2]
