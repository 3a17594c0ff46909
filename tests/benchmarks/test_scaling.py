"""The scaling benchmark: its arithmetic on numbers worked out by hand, and a run of seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.scaling import bytes_sent, expected, main, ring_speed, step_seconds


def test_bytes_of_a_ring() -> None:
    """Eight processes, 800 bytes: a pass around the ring is 700 of them."""
    assert bytes_sent("ddp", 800, 8, 1) == bytes_sent("ddp", 800, 8, 4) == 1400
    assert bytes_sent("fsdp", 800, 8, 1) == 2100
    assert bytes_sent("fsdp", 800, 8, 4) == 6300
    assert bytes_sent("fsdp", 800, 8, 4, gloo=True) == 7000
    assert bytes_sent("ddp", 800, 1, 1) == 0


def test_a_ring_is_as_fast_as_its_slowest_link() -> None:
    links = {"gpus_per_node": 8, "inside": 200.0, "between": 12.5}
    assert [ring_speed(n, **links) for n in (1, 8, 9, 256)] == [200, 200, 12.5, 12.5]


@pytest.mark.parametrize(
    ("strategy", "accumulation", "overlap", "seconds"),
    [
        ("ddp", 1, 0.0, 30 + 24),
        ("ddp", 4, 0.0, 120 + 24),
        ("ddp", 1, 1.0, 30 + 4),  # 20 of the 24 go on behind the backward pass, two thirds of 30
        ("ddp", 1, 0.5, 30 + 14),
        ("fsdp", 1, 0.0, 30 + 36),
        ("fsdp", 1, 1.0, 30 + 6),
        ("fsdp", 4, 0.0, 120 + 3 * 24 + 36),
        ("fsdp", 4, 1.0, 120 + 6),  # the gathers of the first three fit
    ],
)
def test_a_step_by_hand(strategy: str, accumulation: int, overlap: float, seconds: float) -> None:
    found = step_seconds(strategy, micro_sec=30, pass_sec=12, accumulation=accumulation, overlap=overlap)
    assert found == pytest.approx(seconds)


def test_efficiency_by_hand() -> None:
    """Two processes send 1 GB of weights at 10 GB/s in 0.1 s, computing takes 0.1 s."""
    settings = {"processes": 2, "micro_sec": 0.1, "weight_bytes": 10**9, "ring": 10.0}
    assert expected("ddp", **settings, accumulation=1) == pytest.approx((50, 75))
    assert expected("ddp", **settings, accumulation=4) == pytest.approx((80, 100 * 0.4 / (0.4 + 0.1 / 3)))
    assert expected("ddp", **{**settings, "processes": 1}, accumulation=1) == (100, 100)


def test_numbers_of_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--compute-only", "--micro-step-ms", "100", "--weights-mb", "1000", "--network-gbit", "80"]
    main([*given, "--gpus", "2", "16", "--inside-gb", "10", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| 80 | 2 | 50 to 75 | 80 to 92 |" in printed and "| 80 | 16 |" in printed
    rows = json.loads((tmp_path / "scaling.json").read_text())["computed"]
    assert len(rows) == 2 * 2 * 2 and rows[0]["clips_per_step"] == 2 * 8
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--compute-only"])
    assert "--compute-only needs --micro-step-ms and --weights-mb" in capsys.readouterr().err


def test_two_processes_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["TIMESFORMER.EMBED_DIM", "24", "TIMESFORMER.DEPTH", "1", "DATA.NUM_FRAMES", "2", "NUM_GPUS", "0"]
    main(["--out", str(tmp_path), "--clips", "2", "--repeats", "2", "--accumulation", "1", "2", "--overrides", *tiny])
    assert "| processes | strategy | accumulation |" in capsys.readouterr().out
    alone, two = json.loads((tmp_path / "scaling.json").read_text())["measured"]
    assert [row["strategy"] for row in two["rows"]] == ["ddp", "ddp", "fsdp", "fsdp"]
    assert alone["processes"] == 1 and two["ring_gb_per_sec"] > 0
    assert all(row["seconds"] > 0 and row["clips_per_sec"] > 0 for row in alone["rows"] + two["rows"])
    if sys.platform == "linux":
        assert all(row["bytes_sent"] == 0 for row in alone["rows"])
        for row in two["rows"][:2]:  # DDP sends once a step, whatever the accumulation
            assert row["bytes_sent"] == pytest.approx(row["expected_bytes"], rel=0.2)
