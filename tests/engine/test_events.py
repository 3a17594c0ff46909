"""What a run says of its own speed."""

from __future__ import annotations

import pytest

from timesformer.engine.events import Progress, data_advice


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


def test_the_share_is_reported_once_and_without_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("timesformer.engine.events.time.perf_counter", lambda: now)
    progress = Progress(total_steps=200, done_steps=100, is_main=False)
    shares = []
    for step in range(1, 81):
        now += 5.0 if step <= 10 else 1.0
        progress.advance(clips=2, waited_sec=4.0 if step <= 10 else 0.25)
        if step % 10 == 0:
            progress.rates()
            now += 1000.0  # validation
            progress.rates()
        shares.append(progress.settled_wait_share())
    assert [(step, share) for step, share in enumerate(shares, start=1) if share is not None] == [(50, 0.25)]
