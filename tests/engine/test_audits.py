"""Audits of a run: they leave the test as it is, know the training's flips, and find the mirror pairs of gestures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timesformer.config import get_cfg
from timesformer.config.defaults import set_value
from timesformer.datasets.gestures.curves import CLASS_NAMES, MIRROR_PAIRS
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.engine import test as testing
from timesformer.engine.audits import choose_variants, make_audits, trained_flips
from timesformer.evaluation.evaluate import Predictions
from timesformer.video.clip_spec import Views
from timesformer.video.variants import Variants
from tools import run_net

Run = Callable[..., int]


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def cfg_of(**settings: Any) -> Any:
    cfg = get_cfg()
    for name, value in settings.items():
        set_value(cfg, name.replace("__", "."), value)
    return cfg


def test_audits_add_to_a_test_and_change_nothing_of_it(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "TEST.AUDITS", False, "SOLVER.MAX_EPOCH", 1) == 0
    assert "as it is" not in capsys.readouterr().out
    plain, predictions = results(tmp_path), (tmp_path / "predictions.csv").read_bytes()
    assert "audits" not in plain
    assert run(tmp_path, "TRAIN.ENABLE", False, "TEST.REPORT", True, "TEST.AUDITS", True) == 0
    found = results(tmp_path)
    audits = found.pop("audits")
    assert found == plain and (tmp_path / "predictions.csv").read_bytes() == predictions
    assert audits["videos"] == 12 and len(audits["classes"]) == 12
    out = capsys.readouterr().out
    assert "set but not used" not in out
    assert "\naudits            the centre view of 12 videos, 95% interval\n  as it is  " in out
    assert 'id="audits"' in (tmp_path / "report.html").read_text()


def test_what_the_training_flipped_is_what_its_checkpoint_says(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips = ("DATA.RANDOM_FLIP", True, "DATA.FLIP_LABEL_MAP", "[[2,3]]", "DATA.FLIP_ONLY_MAPPED", True)
    assert run(tmp_path, *flips, "TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 1) == 0
    given: list[Any] = []
    monkeypatch.setattr(testing, "make_audits", lambda *args: given.append(args) or {})
    assert run(tmp_path, "TRAIN.ENABLE", False) == 0
    (videos, predictions, num_classes, training) = given[0]
    assert (len(videos.records), predictions.guesses.shape, num_classes) == (12, (12, 5), 12)
    assert training["DATA.RANDOM_FLIP"] is True and training["DATA.FLIP_LABEL_MAP"] == [[2, 3]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ([], {})),
        ({"DATA__FLIP_LABEL_MAP": [["a", "b"]]}, ([], {})),
        ({"DATA__RANDOM_FLIP": True}, ([0, 1, 2], {})),
        ({"DATA__RANDOM_FLIP": True, "DATA__FLIP_LABEL_MAP": [["a", "c"]]}, ([0, 1, 2], {0: 2, 2: 0})),
        (
            {"DATA__RANDOM_FLIP": True, "DATA__FLIP_LABEL_MAP": [["a", "c"]], "DATA__FLIP_ONLY_MAPPED": True},
            ([0, 2], {0: 2, 2: 0}),
        ),
        ({"DATA__RANDOM_FLIP": True, "DATA__FLIP_LABEL_MAP": [["x", "y"]]}, ([0, 1, 2], {})),  # of other classes
    ],
)
def test_the_flips_of_a_training(settings: dict[str, Any], expected: tuple[list[int], dict[int, int]]) -> None:
    assert trained_flips(cfg_of(MODEL__NUM_CLASSES=3, **settings), ["a", "b", "c"]) == expected


def test_which_tests_are_audited(caplog: pytest.LogCaptureFixture) -> None:
    views = Views(num_clips=1, num_crops=3)
    assert choose_variants(cfg_of(RNG_SEED=4), 240) == Variants(views=views, seed=4)
    assert choose_variants(cfg_of(DATA__MULTI_LABEL=True), 240) is None
    assert choose_variants(cfg_of(TEST__AUDITS=False), 240) is None
    assert choose_variants(cfg_of(TEST__AUDITS=True), 10**5) is not None
    with caplog.at_level("INFO"):
        assert choose_variants(cfg_of(TEST__NUM_SPATIAL_CROPS=1), 301) is None
    assert "left out for 301 videos of 1 x 1 view; TEST.AUDITS True makes them" in caplog.text


def test_a_training_against_the_findings_is_a_warning() -> None:
    labels = [i % 2 for i in range(20)]
    videos = VideoList([VideoRecord(f"{i}.mp4", label, "") for i, label in enumerate(labels)], ["left", "right"])
    guesses = np.stack([labels, [1 - label for label in labels], labels, labels, labels], axis=1)
    predictions = Predictions(np.arange(20), [*labels], np.eye(2)[labels], [], np.ones(20), [], guesses)
    unknown = make_audits(videos, predictions, 2, {})
    assert unknown["flip_label_map"] == [["left", "right"]] and unknown["warnings"] == []
    flips = {"DATA.RANDOM_FLIP": True, "MODEL.NUM_CLASSES": 2}
    (warning,) = make_audits(videos, predictions, 2, flips)["warnings"]
    assert "DATA.FLIP_LABEL_MAP needs" in warning
    assert make_audits(videos, predictions, 2, flips | {"DATA.FLIP_LABEL_MAP": [["right", "left"]]})["warnings"] == []
    nothing = Predictions(np.arange(0), [], np.empty((0, 2)), [], np.ones(0), [], guesses[:0])
    assert make_audits(videos, nothing, 2, {}) == {} == make_audits(videos, replace(nothing, guesses=None), 2, {})


def test_a_space_only_model_needs_no_motion(tmp_path: Path, run: Run) -> None:
    """It averages the frames: their order does not matter, their number does."""
    assert run(tmp_path, "TIMESFORMER.ATTENTION_TYPE", "space_only", "SOLVER.MAX_EPOCH", 1, "TEST.SPLIT", "train") == 0
    audits = results(tmp_path)["audits"]
    motion, accuracy = audits["needs"]["motion"], {name: each["value"] for name, each in audits["accuracy"].items()}
    assert motion["value"] == 0 and motion["low"] < 0 < motion["high"]
    assert accuracy["as it is"] == accuracy["reversed"] == accuracy["shuffled"] > 0


@pytest.mark.slow
def test_a_model_trained_without_flips_names_the_mirror_pairs_of_the_gestures_and_needs_motion(tmp_path: Path) -> None:
    cfg = Path(__file__).parents[2] / "configs/Gestures/StreamTimeSformer_demo.yaml"
    settings = {
        **{"OUTPUT_DIR": tmp_path / "run", "DATA.PATH_TO_DATA_DIR": tmp_path / "clips", "MODEL.WEIGHTS": "gestures"},
        **{"GESTURES.NUM_SUBJECTS": "[20,1,10]", "GESTURES.FRAME_SIZE": "[48,48]", "SOLVER.MAX_EPOCH": 8},
        **{"TEST.NUM_SPATIAL_CROPS": 1, "TEST.BASELINES": False, "TEST.REPORT": False},
    }
    assert run_net.main(["--cfg", str(cfg), *(str(word) for pair in settings.items() for word in pair)]) == 0
    audits = results(tmp_path / "run")["audits"]
    swaps = {(CLASS_NAMES.index(a), CLASS_NAMES.index(b)) for a, b, *_ in audits["mirrored"] if a != b}
    assert swaps == {*MIRROR_PAIRS}
    assert [a for a, b, *_ in audits["mirrored"] if a == b] == [*CLASS_NAMES[:2]]  # they are their own
    assert {(CLASS_NAMES.index(a), CLASS_NAMES.index(b)) for a, b, *_ in audits["reversed"] if a != b} <= swaps
    assert audits["needs"]["motion"]["value"] >= 40
