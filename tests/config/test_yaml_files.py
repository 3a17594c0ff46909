"""Every file under configs/ loads; those of the original say what the original said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timesformer.config import get_cfg, load_config
from timesformer.config.defaults import KEY_BY_NAME, KEYS

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "_base_")
ORIGINALS: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/data/original_configs.json").read_text())
OURS_OF_THE_ORIGINAL = [name for name in ORIGINALS if "SLOWFAST" not in name and "AFOSR" not in name]


def flat(cfg: Any) -> dict[str, Any]:
    """Every key with its value."""
    values = {}
    for key in KEYS:
        node = cfg
        for part in key.name.split("."):
            node = node[part]
        values[key.name] = node
    return values


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_loads_without_advice_and_starts_with_its_base(path: Path) -> None:
    loaded = load_config(str(path))
    assert loaded.advice == []
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines[0].startswith("_BASE_: ") and len(lines) < 30
    folder = path.relative_to(ROOT / "configs").with_suffix("")
    assert Path(loaded.cfg.OUTPUT_DIR) == "output" / folder
    assert "DATA.RANDOM_FLIP" in loaded.set_by_user


@pytest.mark.parametrize("name", OURS_OF_THE_ORIGINAL)
def test_same_values_as_the_original(name: str) -> None:
    ours = flat(load_config(str(ROOT / "configs" / name)).cfg)
    differ = {
        key: (value, ours[key])
        for key, value in ORIGINALS[name].items()
        if key in KEY_BY_NAME and ours[key] != (float(value) if value == "1e-4" else value)
    }
    allowed = {
        "OUTPUT_DIR",
        "RNG_SEED",
        "DATA.PATH_TO_DATA_DIR",
        "DATA.PATH_PREFIX",
        "TEST.CHECKPOINT_FILE_PATH",
    }
    assert differ.keys() <= allowed
    unset = {"DATA.RANDOM_FLIP": True, "GLOBAL_BATCH_SIZE": 64} | ORIGINALS[name]
    assert ours["DATA.RANDOM_FLIP"] == unset["DATA.RANDOM_FLIP"] and ours["GLOBAL_BATCH_SIZE"] == 64


def test_the_gesture_works_main_config() -> None:
    ours, original = (
        flat(load_config(str(ROOT / "configs/Kinetics/vn.yaml")).cfg),
        ORIGINALS["Kinetics/AFOSR.yaml"],
    )
    apart = ("OUTPUT_DIR", "DATA.PATH_TO_DATA_DIR", "TENSORBOARD.LOG_DIR")
    for key, value in original.items():
        if key in KEY_BY_NAME and key not in apart:
            assert ours[key] == (float(value) if value == "1e-4" else value), key
    assert ours["DATA.RANDOM_FLIP"] is False


def test_the_two_demos_differ_only_in_model_name_and_sampling() -> None:
    light, habit = (
        flat(load_config(str(ROOT / f"configs/Gestures/{name}_demo.yaml")).cfg)
        for name in ("LightTimeSformer", "TimeSformer_8x32")
    )
    differ = {key for key in light if light[key] != habit[key]}
    assert differ == {"MODEL.MODEL_NAME", "DATA.SAMPLING_RATE", "OUTPUT_DIR"}


def test_defect_13_no_gesture_config_flips_without_swapping_labels() -> None:
    for path in FILES:
        cfg = load_config(str(path)).cfg
        if path.parent.name in ("MuWiGes", "Gestures"):
            pairs = cfg.DATA.FLIP_LABEL_MAP
            assert not cfg.DATA.RANDOM_FLIP or pairs == [[2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


def test_every_base_alone_is_part_of_some_config() -> None:
    text = "".join(path.read_text() for path in (ROOT / "configs").rglob("*.yaml"))
    assert [path.name for path in (ROOT / "configs/_base_").iterdir() if path.name not in text] == []


def test_dumped_config_of_a_file_loads_to_the_same(tmp_path: Path) -> None:
    cfg = load_config(str(FILES[0])).cfg
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert load_config(str(tmp_path / "config.yaml")).cfg == cfg != get_cfg()
