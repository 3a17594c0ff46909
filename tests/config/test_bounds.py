"""What people type without meaning harm: names of other programs, absurd numbers, endless YAML, paths with ~."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from timesformer.config import load_config, unread_keys
from timesformer.config.defaults import KEY_BY_NAME, KEYS, get_value
from timesformer.config.synonyms import _MEANT
from timesformer.utils.errors import ConfigError


def write(folder: Path, text: str) -> str:
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


def problems(path: str | None, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRAIN.EPOCHS", "SOLVER.MAX_EPOCH"),
        ("SOLVER.LR", "SOLVER.BASE_LR"),
        ("optimizer.weight_decay", "SOLVER.WEIGHT_DECAY"),
        ("MODEL.PRETRAINED", "MODEL.WEIGHTS"),
        ("LIN_PROBE", "TRAIN.TRAINABLE_BLOCKS 0"),
        ("per_device_train_batch_size", "TRAIN.BATCH_SIZE"),
        ("VAL.BATCH_SIZE", "TEST.BATCH_SIZE"),
        ("num-train-epochs", "SOLVER.MAX_EPOCH"),
        ("MODEL.DROPPATH_RATE", "MODEL.DROP_PATH_RATE"),
        ("TRAIN.MIXED_PRECISION", "PRECISION"),
    ],
)
def test_names_of_other_programs(name: str, meant: str) -> None:
    assert f"{name} is not a key; did you mean {meant}?" in problems(None, name, "1")


def test_synonyms_lead_to_keys_and_hide_none() -> None:
    for name, meant in _MEANT.items():
        assert {word for word in meant.replace(",", "").split() if word.isupper()} & KEY_BY_NAME.keys(), meant
        assert name.upper() not in KEY_BY_NAME


ABSURD = ["1e30", "9" * 5000, ".nan"]


@pytest.mark.parametrize("kind", sorted({key.kind for key in KEYS if key.high is not None}))
def test_absurd_numbers_are_refused_in_a_short_message(kind: str) -> None:
    for key in (key for key in KEYS if key.kind == kind):
        for word in ABSURD:
            text = problems(None, key.name, word)
            assert f"{key.name}: found " in text and len(text) < 1500


@pytest.mark.parametrize("letter", ["[", "{"])
def test_nesting_without_end_is_refused_in_a_short_message(letter: str) -> None:
    assert len(problems(None, "SOLVER.LRS", letter * 3000)) < 500


def test_every_number_has_both_limits_with_the_default_between() -> None:
    for key in KEYS:
        if key.kind.split("|")[0] in ("int", "float", "ints", "floats", "size", "pairs"):
            assert key.choices or (key.low is not None and key.high is not None), key.name


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100000 values"),
        ("A: &a\n  B: *a\n", "an alias that holds itself"),
        ("RNG_SEED: " + "[" * 5000, "more than 20 levels"),
        ("OUTPUT_DIR: " + "x" * 2_000_000, "no configuration is that large"),
    ],
    ids=["bomb", "circle", "depth", "size"],
)
def test_yaml_is_bounded(tmp_path: Path, text: str, message: str) -> None:
    assert message in problems(write(tmp_path, text))


PATHS = [key.name for key in KEYS if key.kind == "path"]


@pytest.mark.parametrize("name", PATHS)
def test_paths_are_expanded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for written, path in {
        "~/x": tmp_path / "x",
        "$DATA_ROOT/x": tmp_path / "data/x",
        "${DATA_ROOT}": tmp_path / "data",
    }.items():
        words = [name, written]
        try:
            assert get_value(load_config(None, words).cfg, name) == str(path)
        except ConfigError as error:  # DATA.CLASS_NAMES_PATH must exist
            assert f"{name} '{path}': there is no such file" in str(error)
    assert "$NOWHERE is not known here" in problems(None, name, "$NOWHERE/x")
    (tmp_path / "$5").touch()
    assert get_value(load_config(None, [name, "$5"]).cfg, name) == "$5"  # it exists as written


def test_every_key_of_a_path_is_one() -> None:
    ends = ("_DIR", "_PATH", "_PREFIX", "MODEL.WEIGHTS", "PATH_TO_DATA_DIR")
    assert PATHS == [key.name for key in KEYS if key.name.endswith(ends)]


def test_unused_keys_are_those_that_the_user_chose(tmp_path: Path) -> None:
    loaded = load_config(None, ["DATA.RE_PROB", "0", "DATA.COLOR_JITTER", "0.4"])
    assert unread_keys(loaded) == ["DATA.COLOR_JITTER (command line)"]  # the other one has its default
    (tmp_path / "config.yaml").write_text(loaded.cfg.dump())  # as a run saves it
    again = load_config(str(tmp_path / "config.yaml"), ["DATA.NUM_FRAMES", "4"])
    assert unread_keys(again) == ["DATA.NUM_FRAMES (command line)"]
    assert unread_keys(load_config("Gestures/LightTimeSformer_demo")) == []
