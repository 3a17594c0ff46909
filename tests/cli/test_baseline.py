"""The command that scores cheap baselines: its table, its file, its errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli.baseline import main
from timesformer.video import hand_landmarks

Call = Callable[..., int]


@pytest.fixture
def call(tiny: list[str], tmp_path: Path) -> Call:  # noqa: F811
    """The command on 24 training clips of generated gestures, with an output folder."""

    def call(*words: object) -> int:
        cfg = ["--cfg", "Gestures/LightTimeSformer_demo", *tiny, "OUTPUT_DIR", str(tmp_path / "out")]
        return main([*cfg, *map(str, words)])

    return call


def table(text: str) -> dict[str, float]:
    """Accuracy of each row of the printed table."""
    return {name: float(top1) for name, top1 in re.findall(r"^(.+?) {2,}([\d.]+) +[\d.]+ to ", text, re.MULTILINE)}


def test_a_table_and_a_file_of_the_same_scores(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    assert call() == 0
    text = capsys.readouterr().out
    scores, file = table(text), tmp_path / "out/baseline.json"
    content = json.loads(file.read_text())
    assert [*scores] == ["majority class", "middle frame + logistic regression", "motion images + logistic regression"]
    assert [round(score["top1"], 1) for score in content["baselines"]] == [*scores.values()]
    assert scores["majority class"] == 8.3 and scores["motion images + logistic regression"] > 25  # 12 classes
    assert "train: 24 videos\ntest: 12 videos\n" in text and text.endswith(f"\nwritten to {file}\n")
    assert "left out: hand landmarks need mediapipe" in text


def test_the_split_is_chosen_and_landmarks_are_used_where_they_can_be_found(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hands:  # a stand-in: it finds the brightest pixel
        def __init__(self, **_: object) -> None: ...
        def __enter__(self) -> Hands:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __call__(self, frames: np.ndarray) -> np.ndarray:
            grey = frames.mean(axis=3).reshape(len(frames), -1)
            return np.repeat(np.stack(np.divmod(grey.argmax(axis=1), 48), axis=1)[:, None] / 48, 21, axis=1)

    monkeypatch.setattr(hand_landmarks, "HandFinder", Hands)
    assert call("--split", "val") == 0
    text = capsys.readouterr().out
    assert "val: 12 videos" in text and "hand landmarks + logistic regression" in table(text)
    assert json.loads((tmp_path / "out/baseline.json").read_text())["split"] == "val"
    assert call("--no-hands", "--split", "val") == 0
    assert "hand landmarks + logistic regression" in table(capsys.readouterr().out), "kept: the lists are the same"
    assert call("--no-hands") == 0
    text = capsys.readouterr().out
    assert "hand landmarks" not in text and json.loads((tmp_path / "out/baseline.json").read_text())["split"] == "test"


def test_several_labels_a_video_are_an_error(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call("--no-hands", "DATA.MULTI_LABEL", True, "MODEL.LOSS_FUNC", "bce_logit", "SOLVER.LABEL_SMOOTHING", 0) == 1
    )
    assert "error: the baselines need one label per video, found DATA.MULTI_LABEL True" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_an_error(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").touch()
    assert call("--no-hands") == 1
    assert f"error: cannot write {tmp_path}/out/baseline.json" in capsys.readouterr().err
