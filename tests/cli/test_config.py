"""The table of keys, and what a file resolves to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from timesformer.cli import config
from timesformer.config.defaults import KEYS
from timesformer.config.describe import describe_keys

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def main() -> Any:
    return config.main


def test_every_key_with_default_choices_and_meaning() -> None:
    text = describe_keys()
    assert all(key.name in text and key.meaning in text for key in KEYS)
    assert "one of sgd, adam, adamw" in text and "auto or a whole number, at least 1" in text


def test_filters_and_choices() -> None:
    assert describe_keys("data.crop").splitlines()[0].split()[:2] == ["DATA.CROP_MODE", "'crop'"]
    assert len(describe_keys("DATA.CROP").splitlines()) == 2
    assert "one of a, b" in describe_keys(["MODEL_NAME"], choices={"MODEL.MODEL_NAME": ("a", "b")})
    assert describe_keys("QQ") == "No key contains QQ."


def test_tool_prints_values_and_where_they_come_from(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", str(ROOT / "configs/SSv2/TimeSformer_divST_8_224.yaml"), "SOLVER.BASE_LR", "0.1"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["SOLVER.BASE_LR"].endswith("command line") and "0.1" in lines["SOLVER.BASE_LR"]
    assert "timesformer_ssv2.yaml:" in lines["DATA.CHANNEL_ORDER"]
    assert lines["GESTURES.HARD"].endswith("default")


def test_tool_prints_tables_and_errors(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["SOLVER", "MIXUP"]) == 0
    assert "SOLVER.BASE_LR" in (out := capsys.readouterr().out) and "MIXUP.PROB" in out and "DATA." not in out
    assert main(["--cfg", "gone.yaml"]) == 1
    assert "cannot read config file 'gone.yaml'" in capsys.readouterr().err
