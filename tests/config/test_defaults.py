"""The declarations themselves: unique names, defaults their own checks accept, meanings."""

from __future__ import annotations

from timesformer.config import get_cfg, load_config
from timesformer.config.defaults import DATASET_DEFAULTS, KEY_BY_NAME, KEYS


def test_names_are_unique_and_upper_case() -> None:
    assert len({key.name for key in KEYS}) == len(KEYS)
    assert all(key.name == key.name.upper() and key.name.count(".") <= 1 for key in KEYS)
    sections = {key.name.split(".")[0] for key in KEYS if "." in key.name}
    assert sections.isdisjoint(KEY_BY_NAME)


def test_defaults_are_valid() -> None:
    words = [word for key in KEYS for word in (key.name, key.default)]
    assert load_config(None, words).cfg == get_cfg()


def test_every_key_has_a_meaning_in_one_line() -> None:
    for key in KEYS:
        assert key.meaning and "\n" not in key.meaning and not key.meaning.endswith("."), key.name


def test_get_cfg_gives_a_fresh_tree() -> None:
    get_cfg().DATA.MEAN.append(1.0)
    assert get_cfg().DATA.MEAN == [0.45, 0.45, 0.45]


def test_dataset_defaults_are_valid_values() -> None:
    for values in DATASET_DEFAULTS.values():
        load_config(None, [word for name, value in values.items() for word in (name, value)])
