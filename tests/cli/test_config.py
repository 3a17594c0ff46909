"""The table of keys, and what a file resolves to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from timesformer.cli.config import describe_keys, main
from timesformer.config.defaults import KEYS

ROOT = Path(__file__).parents[2]


def test_every_key_with_default_choices_and_meaning() -> None:
    text = " ".join(describe_keys().split())
    assert all(key.name in text and key.meaning in text for key in KEYS)
    assert "0.0 a number, from 0 to 0.99" in text
    assert "one of sgd, adam, adamw" in text and "auto or a whole number, from 1 to 1,000" in text


def test_filters_and_choices() -> None:
    assert describe_keys("data.crop").splitlines()[0].split()[:2] == ["DATA.CROP_MODE", "'crop'"]
    assert describe_keys("DATA.CROP").splitlines() == [
        "DATA.CROP_MODE  'crop'  one of crop, full",
        "    crop: scale to the short side, then crop; full: the whole frame, resized to",
        "    the crop size",
    ]
    assert "one of a, b" in describe_keys(["MODEL_NAME"], choices={"MODEL.MODEL_NAME": ("a", "b")})
    assert describe_keys("QQ") == "No key contains QQ."


def test_registered_names_are_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["MODEL_NAME", "train.dataset", "cosine"]) == 0
    unwrapped = re.sub(r"\n {5,}", " ", capsys.readouterr().out)
    lines = {words[0]: line for line in unwrapped.splitlines() if (words := line.split())}
    assert all(model in lines["MODEL.MODEL_NAME"] for model in ("LightTimeSformer", "TimeSformer", "r3d_18"))
    assert all(dataset in lines["TRAIN.DATASET"] for dataset in ("kinetics", "ssv2", "muwiges", "folder"))


def test_lines_fit_the_terminal() -> None:
    assert max(map(len, describe_keys().splitlines())) <= 80


def test_tool_prints_values_and_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", str(ROOT / "configs/SSv2/TimeSformer_divST_8_224.yaml"), "SOLVER.BASE_LR", "0.1"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["SOLVER.BASE_LR"].endswith("command line") and "0.1" in lines["SOLVER.BASE_LR"]
    assert "timesformer_ssv2.yaml:" in lines["DATA.CHANNEL_ORDER"]
    assert lines["GESTURES.HARD"].endswith("default")
    assert max(map(len, lines.values())) <= 80


def test_the_package_has_the_file_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--cfg", "Gestures/LightTimeSformer_demo"]) == 0
    assert "LightTimeSformer_demo.yaml:5" in capsys.readouterr().out


def test_a_file_that_no_run_accepts_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "Gestures/LightTimeSformer_demo", "TIMESFORMER.PATCH_SIZE", "7"]) == 1
    assert "is not a multiple of TIMESFORMER.PATCH_SIZE 7" in capsys.readouterr().err


def test_tool_prints_tables_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["SOLVER", "MIXUP"]) == 0
    assert "SOLVER.BASE_LR" in (out := capsys.readouterr().out) and "MIXUP.PROB" in out and "DATA." not in out
    assert main(["--cfg", "gone.yaml"]) == 1
    assert "cannot read config file 'gone.yaml'" in capsys.readouterr().err
