"""The check of a GPU, at its small size on the CPU: every part works, and one that fails is reported as that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_parts import PARTS, rates

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="here the check would take its full size")


@needs_no_gpu
def test_rates() -> None:
    found = rates(torch.device("cpu"))
    assert {"bfloat16 TFLOP/s", "device copy GB/s", "pageable to device GB/s"} <= found.keys()
    assert all(value > 0 for value in found.values())


@pytest.mark.slow
@needs_no_gpu
def test_every_part_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patient = {name: (function, 10 * limit) for name, (function, limit) in PARTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.gpu_parts.PARTS", patient)
        assert gpu_check.main(["--out", str(tmp_path), "--limit", "3600"]) == 0, capsys.readouterr().out
    for name in PARTS:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["seconds"] > 0 and "failed" not in found
        assert ("skipped" in found) == (name == "infinity")
    assert json.loads((tmp_path / "exactness.json").read_text())["ok"] is True
    assert len((tmp_path / "summary.md").read_text().splitlines()) == 2 + len(PARTS)


def test_a_part_that_takes_too_long_or_that_has_no_time_left(tmp_path: Path) -> None:
    assert gpu_check.run_part("rates", tmp_path, 0.01)["failed"] == "not done after 0 s"
    assert gpu_check.main(["--out", str(tmp_path), "--limit", "0"]) == 0
    assert "| demo | 0.0 | skipped: no time left of --limit 0 |" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"failed": "Traceback\nRuntimeError: no"}, "FAILED: RuntimeError: no"),
        ({"ok": False, "a": {"b": 0.25}, "seconds": 1.0}, "WRONG a b 0.25"),
        ({"ok": True}, "ok"),
    ],
)
def test_a_part_in_one_line(found: dict, text: str) -> None:
    assert gpu_check.summary(found) == text
