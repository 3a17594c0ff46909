"""Defaults, YAML files and `KEY VALUE` words to one checked, frozen configuration; reports all problems."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from timesformer.config import legacy
from timesformer.config.check import advise_config, check_config
from timesformer.config.defaults import DATASET_DEFAULTS, KEY_BY_NAME, Key, get_cfg, get_value, set_value
from timesformer.config.locate import bundled_configs, find_config
from timesformer.config.read import COMMAND_LINE, Settings
from timesformer.config.synonyms import meant_key
from timesformer.utils.errors import ConfigError
from timesformer.utils.paths import expand_path

MAX_FOUND = 200  # letters of a wrong value that a message shows


class TrackingCfgNode(CfgNode):
    """An fvcore CfgNode that records which of its keys were read as ``cfg.A.B`` or ``cfg["A"]["B"]``.

    dump(), clone(), printing, pickling and iteration do not count; a clone has a record of its own.
    """

    def __init__(self, init_dict: Any = None, key_list: Any = None, new_allowed: bool = False) -> None:
        super().__init__(init_dict, key_list, new_allowed)
        self.__dict__["_read"] = set()

    def __getitem__(self, name: str) -> Any:
        self.__dict__["_read"].add(name)
        return super().__getitem__(name)

    def was_read(self, name: str) -> bool:
        """Whether the dotted key `name` below this node was read."""
        first, _, rest = name.partition(".")
        return dict.__getitem__(self, first).was_read(rest) if rest else first in self.__dict__["_read"]


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration that passed all checks."""

    cfg: CfgNode  # the frozen tree, with every key
    advice: list[str]  # keys without effect and values that follow from others, one line each
    set_by_user: dict[str, str]  # key -> where it was set last ("file.yaml:12" or "command line")


def unread_keys(loaded: LoadedConfig, *, ignore: Collection[str] = ()) -> list[str]:
    """The keys that the user set to another value than the default and that nothing has read, as "KEY (file.yaml:12)".

    Args:
        loaded: the configuration.
        ignore: parts of a run, "training" or "test"; keys that only they use are left out.
    """
    files = Counter(location.rpartition(":")[0] for location in loaded.set_by_user.values())
    # Not the user's choice: what the package's files set, and the config.yaml of a run, which has every key.
    others = tuple(file for file, count in files.items() if file and count > 0.8 * len(KEY_BY_NAME))
    others += (f"{bundled_configs()}{os.sep}",)
    return [
        f"{name} ({location})"
        for name, location in loaded.set_by_user.items()
        if not location.startswith(others)
        and KEY_BY_NAME[name].used_by not in ignore
        and not loaded.cfg.was_read(name)
        and get_value(loaded.cfg.clone(), name) != KEY_BY_NAME[name].default
    ]


def load_config(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[Any] = (),
    *,
    choices: Mapping[str, Sequence[str]] | None = None,
    checks: Sequence[Callable[[CfgNode], Iterable[str]]] = (),
) -> LoadedConfig:
    """Read, merge and check a configuration: defaults, then `_BASE_` files, then `path`, then `overrides`.

    Args:
        path: a YAML file, or a configuration of the package (see `find_config`); None: the defaults.
        overrides: words ``KEY VALUE KEY VALUE``; values are written as in YAML.
        choices: allowed values that only the caller knows (names of models and datasets), by key.
        checks: cross-checks that only the caller knows: the configuration -> problems.

    Raises:
        ConfigError: lists every problem with its location and what is allowed.
    """
    settings, choices = Settings(), choices or {}
    if path is not None:
        try:
            settings.add_file(os.fspath(find_config(path)))
        except ConfigError as error:
            settings.fail(f"{COMMAND_LINE}: {error}")
    settings.add_words(overrides)

    cfg, problems, advice = get_cfg(), settings.problems, []
    invalid: set[str] = set()  # keys with a problem of their own: cross-checks of them would only confuse
    locations: dict[str, str] = {}
    old: dict[str, tuple[Any, str]] = {}
    for written, value, location in settings.found:
        name = legacy.rename_key(written)
        if key := KEY_BY_NAME.get(name):
            value, note = legacy.rename_value(name, value)
            advice += [f"{location}: {note}"] if note else []
            value, problem = _check_value(key, value, choices.get(name) or key.choices)
            locations[name] = location
            if not problem:
                set_value(cfg, name, value)
        elif legacy.is_legacy(name):
            old[name], problem = (value, location), ""
        else:
            problem = f"{name} {_unknown(name)}"
        if problem:
            problems.append(f"{location}: {problem}")
            invalid.add(name)

    models = choices.get("MODEL.MODEL_NAME", legacy.MODELS)
    problems += legacy.foreign_model(old.get("MODEL.ARCH"), cfg.MODEL.MODEL_NAME, locations, models)
    advice += [*legacy.advise(old), *_fill_in(cfg, locations, from_file=path is not None)]
    if settings.complete:
        for problem in (problem for check in (check_config, *checks) for problem in check(cfg)):
            keys = [name for name in re.findall(r"[A-Z][A-Z0-9_.]*[A-Z]", problem) if name in KEY_BY_NAME]
            origins = ", ".join(f"{key} is from {locations[key]}" for key in dict.fromkeys(keys) if key in locations)
            if invalid.isdisjoint(keys):
                problems.append(f"{problem} ({origins})" if origins else problem)
    if problems:
        problems = list(dict.fromkeys(problems))
        title = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{title} in the configuration:\n" + "\n".join(f"  - {line}" for line in problems))
    advice += advise_config(cfg)
    tracked = TrackingCfgNode(cfg)
    tracked.freeze()
    return LoadedConfig(tracked, list(dict.fromkeys(advice)), locations)


def config_from_settings(settings: Mapping[str, Any]) -> CfgNode:
    """The tree of settings that a checkpoint stores; keys and values that are not of this version keep their default.

    Args:
        settings: dotted key to value.
    """
    cfg = get_cfg()
    for name, stored in settings.items():
        if key := KEY_BY_NAME.get(name):
            value, problem = _check_value(key, stored, key.choices)
            if not problem:
                set_value(cfg, name, value)
    return cfg


def _fill_in(cfg: CfgNode, locations: Mapping[str, str], *, from_file: bool) -> list[str]:
    """Give unset keys the values of the dataset; one line of advice for each such key."""
    split = "TRAIN" if cfg.TRAIN.ENABLE else "TEST"
    advice = []
    for name, value in DATASET_DEFAULTS.get(cfg[split].DATASET, {}).items():
        if name not in locations:
            set_value(cfg, name, value)
            advice.append(f"{name} is {value}, the default for {split}.DATASET {cfg[split].DATASET}.")
    if from_file and cfg.TRAIN.ENABLE and "DATA.RANDOM_FLIP" not in locations:
        advice.append(
            "DATA.RANDOM_FLIP is not set and therefore False (in the original: True). If no class is the mirror image "
            "of another, set DATA.RANDOM_FLIP True."
        )
    return advice


def _check_value(key: Key, value: Any, choices: Sequence[Any]) -> tuple[Any, str]:
    """The value in the key's kind, and what is wrong with it ("": nothing)."""
    found = repr(value)
    found = found if len(found) <= MAX_FOUND else f"{found[:MAX_FOUND]} ..."
    problem = f"{key.name}: found {found}; allowed: {key.allowed(choices)}."
    try:
        value = _convert(key, key.kind, value)
    except re.error as error:
        return value, f"{problem} The pattern is not valid: {error}."
    except (ValueError, TypeError, OverflowError) as error:
        detail = f" {error}." if key.kind == "path" and isinstance(value, str) else ""
        return value, f"{problem}{detail} It means: {key.meaning}."
    if isinstance(value, str) and key.kind != "pattern" and key.name != "DATA.PATH_LABEL_SEPARATOR":
        value = value.strip()
    if not choices or value in choices:
        return value, ""
    near = difflib.get_close_matches(str(value), map(str, choices), n=1, cutoff=0.35)
    return value, problem + (f" Did you mean {near[0]}?" if near else "")


def _convert(key: Key, kind: str, value: Any) -> Any:
    """`value` in `kind`, within the key's range.

    Raises:
        ValueError, TypeError: it is of another kind, or out of range.
    """
    if kind.endswith("|auto"):
        return value if value == "auto" else _convert(key, kind.removesuffix("|auto"), value)
    if kind in ("ints", "floats", "strs"):
        return [_convert(key, kind[:-1], item) for item in _items(value, key.length)]
    if kind == "pairs":
        return [[_convert(key, "label", item) for item in _items(pair, 2)] for pair in _items(value)]
    if kind == "label":
        is_name = isinstance(value, str) and value.strip()
        return value.strip() if is_name else _convert(key, "int", value)
    if kind == "size":
        is_side = isinstance(value, int)
        return _convert(key, "int", value) if is_side else [_convert(key, "int", side) for side in _items(value, 2)]
    if kind == "float" and type(value) in (int, str):  # PyYAML reads 1e-4 as text
        value = float(value)
    if kind == "pattern" and (value == "" or re.compile(value).groups):
        return value
    if type(value).__name__ != ("str" if kind == "path" else kind):  # exact: a bool is no int
        raise ValueError(value)
    if kind in ("int", "float") and not key.choices and not key.low <= value <= key.high:  # type: ignore[operator]
        raise ValueError(value)
    return expand_path(value.strip()) if kind == "path" else value


def _items(value: Any, length: int | None = None) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
        raise ValueError(value)
    return value


def _unknown(name: str) -> str:
    """What is wrong with a name that is no key, with the nearest key."""
    below = sorted(key for key in KEY_BY_NAME if key.startswith(f"{name}."))
    if below:
        return f"is a section; its keys are {', '.join(below)}."
    if meant := meant_key(name):
        return f"is not a key; did you mean {meant}?"
    leaf = name.upper().rpartition(".")[2]
    near = [key for key in KEY_BY_NAME if key.rpartition(".")[2] == leaf][:1]
    near = difflib.get_close_matches(name.upper(), KEY_BY_NAME, n=1, cutoff=0.9 if near else 0.6) or near
    hint = f"did you mean {near[0]}?" if near else "`timesformer config` lists all keys."
    return f"is not a key; {hint}"
