"""YAML files and `KEY value` words to one checked, frozen configuration; all problems told at once."""

from __future__ import annotations

import ast
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from timesformer.config import legacy
from timesformer.config.check import advise_config, check_config
from timesformer.config.defaults import DATASET_DEFAULTS, KEY_BY_NAME, Key, get_cfg, set_value
from timesformer.config.describe import allowed
from timesformer.utils.errors import ConfigError

BASE_KEY = "_BASE_"
COMMAND_LINE = "command line"
_SECTIONS = {key.name.rpartition(".")[0] for key in KEY_BY_NAME.values()} - {""}
_SPACES_COUNT = {"DATA.PATH_LABEL_SEPARATOR", "FOLDER.SUBJECT_PATTERN"}  # text that is not stripped


class TrackingCfgNode(CfgNode):
    """An fvcore CfgNode that remembers which of its keys were read as ``cfg.A.B`` or ``cfg["A"]["B"]``.

    dump(), clone(), printing, pickling and iteration do not count; a clone goes on counting on its own.
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
    """A configuration that passed all checks.

    Attributes:
        cfg: the frozen tree, with every key.
        advice: one line each about keys without effect here and values chosen for the user.
        set_by_user: key -> where it was set last ("file.yaml:12" or "command line").
    """

    cfg: CfgNode
    advice: list[str]
    set_by_user: dict[str, str]


def unread_keys(loaded: LoadedConfig) -> list[str]:
    """The keys the user set that nothing has read so far, as "KEY (file.yaml:12)"."""
    unread = (name for name in loaded.set_by_user if not loaded.cfg.was_read(name))
    return [f"{name} ({loaded.set_by_user[name]})" for name in unread]


def load_config(
    path: str | None, overrides: Sequence[str] = (), *, choices: Mapping[str, Sequence[str]] | None = None
) -> LoadedConfig:
    """Read, merge and check a configuration: defaults, then `_BASE_` files, then `path`, then `overrides`.

    Args:
        path: a YAML file; None takes the defaults.
        overrides: words ``KEY value KEY value``; values are written as in YAML.
        choices: names known only to the caller (of models and datasets), by key.

    Raises:
        ConfigError: lists every problem with its place and what is allowed.
    """
    source = _Source()
    if path is not None:
        source.file(os.fspath(path))
    source.words(overrides)

    cfg, choices = get_cfg(), choices or {}
    problems, advice = source.problems, []
    bad: set[str] = set()  # keys with a problem of their own: cross-checks on them would only confuse
    where: dict[str, str] = {}
    old: dict[str, tuple[Any, str]] = {}
    for name, value, place in source.settings:
        key = KEY_BY_NAME.get(name)
        if key is not None:
            value, note = legacy.rename_value(name, value)
            advice += [f"{place}: {note}"] if note else []
            value, problem = _check_value(key, value, choices.get(name) or key.choices)
            where[name] = place
            if problem is None:
                set_value(cfg, name, value)
        elif legacy.is_legacy(name):
            old[name], problem = (value, place), None
        else:
            problem = f"{name} {_unknown(name)}"
        if problem is not None:
            problems.append(f"{place}: {problem}")
            bad.add(name)

    models = choices.get("MODEL.MODEL_NAME", legacy.MODELS)
    problems += legacy.foreign_model(old.get("MODEL.ARCH"), cfg.MODEL.MODEL_NAME, where, models)
    advice += legacy.advise(old) + _fill_in(cfg, where, from_file=path is not None)
    if source.complete:
        for problem in check_config(cfg):
            keys = [name for name in re.findall(r"[A-Z][A-Z0-9_.]*[A-Z]", problem) if name in KEY_BY_NAME]
            places = ", ".join(f"{name} is from {where[name]}" for name in dict.fromkeys(keys) if name in where)
            if bad.isdisjoint(keys):
                problems.append(f"{problem} ({places})" if places else problem)
    if problems:
        problems = list(dict.fromkeys(problems))
        title = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{title} in the configuration:\n" + "\n".join(f"  - {line}" for line in problems))
    advice += advise_config(cfg)
    tracked = TrackingCfgNode(cfg)
    tracked.freeze()
    return LoadedConfig(tracked, list(dict.fromkeys(advice)), where)


def _fill_in(cfg: CfgNode, where: Mapping[str, str], *, from_file: bool) -> list[str]:
    """Set what the dataset means where the user said nothing; one line of advice for each such key."""
    split = "TRAIN" if cfg.TRAIN.ENABLE else "TEST"
    dataset, advice = cfg[split].DATASET, []
    for name, value in DATASET_DEFAULTS.get(dataset, {}).items():
        if name not in where:
            set_value(cfg, name, value)
            why = f"because {split}.DATASET is {dataset}"
            advice.append(f"{name} is {value} {why}; set it to choose otherwise.")
    if from_file and cfg.TRAIN.ENABLE and "DATA.RANDOM_FLIP" not in where:
        advice.append(
            "DATA.RANDOM_FLIP is not set and therefore False (in the original: True); a flip is right only "
            "where no class is the mirror image of another: then add DATA.RANDOM_FLIP True."
        )
    return advice


@dataclass
class _Source:
    """What files and words set, in order, and what is wrong with their form."""

    settings: list[tuple[str, Any, str]] = field(default_factory=list)  # (key, value, place)
    problems: list[str] = field(default_factory=list)
    complete: bool = True  # False when a part could not be read

    def file(self, path: str, asked_by: str = "", chain: tuple[str, ...] = ()) -> None:
        """Add the settings of one YAML file, those of its `_BASE_` files first."""
        if os.path.realpath(path) in chain:
            circle = " -> ".join(map(os.path.basename, (*chain, path)))
            return self._broken(f"{asked_by}: {BASE_KEY} goes round in a circle: {circle}.")
        try:
            with open(path, encoding="utf-8") as stream:
                loader = yaml.SafeLoader(stream)
                root = loader.get_single_node()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            return self._broken(f"{asked_by or COMMAND_LINE}: cannot read config file {path!r}: {reason}.")
        except yaml.YAMLError as error:
            return self._broken(_syntax(path, error))
        if not isinstance(root, yaml.MappingNode):
            if root is not None:
                self._broken(f"{path}:1: the file must consist of KEY: value lines and sections.")
            return None
        for key_node, value_node in root.value:
            if key_node.value == BASE_KEY:
                place = _place(path, key_node)
                bases = loader.construct_object(value_node, deep=True)
                bases = [bases] if isinstance(bases, str) else bases
                if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
                    self._broken(f"{place}: {BASE_KEY} must be a path or a list of paths, found {bases!r}.")
                    continue
                for base in bases:
                    base = os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(base)))
                    self.file(base, place, (*chain, os.path.realpath(path)))
        self._walk(root, "", path, loader, {})
        return None

    def words(self, words: Sequence[Any]) -> None:
        """Add the settings of the command line."""
        if len(words) % 2:
            shape = re.compile(r"[A-Z_]+(\.[A-Z0-9_]+)*")
            is_key = [bool(shape.fullmatch(str(w))) or str(w).upper() in KEY_BY_NAME for w in words]
            alone = next((i for i, pair in enumerate(pairwise([*is_key, True])) if pair[0] == pair[1]), 0)
            wrong = "has no value" if is_key[alone] else "has no KEY"
            return self._broken(
                f"{COMMAND_LINE}: settings are KEY value pairs, but {words[alone]!r} {wrong} "
                f"in: {' '.join(map(str, words))}"
            )
        for name, word in zip(words[::2], words[1::2], strict=True):
            value = _parse_word(word, KEY_BY_NAME.get(name)) if isinstance(word, str) else word
            self.settings.append((str(name), value, COMMAND_LINE))
        return None

    def _broken(self, problem: str) -> None:
        self.problems.append(problem)
        self.complete = False

    def _walk(
        self, node: yaml.MappingNode, prefix: str, path: str, loader: yaml.SafeLoader, seen: dict[str, int]
    ) -> None:
        """Add the settings below one mapping; `seen` maps the names of this file to their lines."""
        for key_node, value_node in node.value:
            name, place = f"{prefix}{key_node.value}", _place(path, key_node)
            if name in seen:
                self.problems.append(f"{place}: {name} is given twice, first in line {seen[name]}; keep one.")
            seen[name] = key_node.start_mark.line + 1
            if name == BASE_KEY:
                continue
            if isinstance(value_node, yaml.MappingNode):
                self._walk(value_node, f"{name}.", path, loader, seen)
                continue
            try:
                value = _construct(value_node, KEY_BY_NAME.get(name), loader)
            except yaml.YAMLError as error:
                self._broken(_syntax(path, error))
                continue
            except ValueError as error:  # a date that does not exist
                self._broken(f"{place}: {name}: {error}")
                continue
            if not (name in _SECTIONS and value is None):  # a section whose lines are all commented out
                self.settings.append((name, value, place))


def _place(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _syntax(path: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    return f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}."


def _construct(node: yaml.Node, key: Key | None, loader: yaml.SafeLoader) -> Any:
    """The value of a YAML node; for a key of kind str, numbers and dates stay text as written."""
    is_word = isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":null", ":bool"))
    return node.value if is_word and key and key.kind == "str" else loader.construct_object(node, deep=True)


def _parse_word(word: str, key: Key | None) -> Any:
    """A word of the command line, read as YAML would, tuples as lists; text of a str key stays as it is."""
    if key is not None and key.kind == "str":
        quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
        return word[1:-1] if quoted else word
    for read in (yaml.safe_load, ast.literal_eval):
        try:
            value = read(word)
        except (yaml.YAMLError, ValueError, SyntaxError):
            continue
        if not (isinstance(value, str) and word.startswith("(")):
            return value
    return word


def _check_value(key: Key, value: Any, choices: Sequence[Any]) -> tuple[Any, str | None]:
    """The value in the key's kind, and what is wrong with it (None: nothing)."""
    problem = f"{key.name}: found {value!r}; allowed: {allowed(key, choices)}."
    try:
        value = _coerce(key.kind, value)
    except (ValueError, TypeError):
        return value, problem
    if isinstance(value, str) and key.name not in _SPACES_COUNT:
        value = value.strip()
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), map(str, choices), n=1, cutoff=0.35)
        return value, problem + (f" Did you mean {near[0]}?" if near else "")
    low, high = -math.inf if key.low is None else key.low, math.inf if key.high is None else key.high
    in_range = all(low <= number <= high for number in _numbers(value))
    return value, None if in_range else f"{problem} It means: {key.meaning}."


def _coerce(kind: str, value: Any) -> Any:
    """`value` in `kind`.

    Raises:
        ValueError, TypeError: it is of another kind.
    """
    if kind.endswith("|auto"):
        return value if value == "auto" else _coerce(kind.removesuffix("|auto"), value)
    if kind in ("ints", "floats", "strs"):
        return [_coerce(kind[:-1], item) for item in _list(value)]
    if kind == "pairs":
        return [_coerce("ints", _list(pair, length=2)) for pair in _list(value)]
    if kind == "size":
        return _coerce("int", value) if isinstance(value, int) else _coerce("ints", _list(value, length=2))
    if kind == "float" and isinstance(value, str):  # PyYAML reads 1e-4 as text
        value = float(value)
    if kind == "float" and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind != "float" and type(value).__name__ == kind:  # exact: a bool is no int
        return value
    raise ValueError(value)


def _list(value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
        raise ValueError(value)
    return list(value)


def _numbers(value: Any) -> Iterable[float]:
    """All numbers in a value, however deep in lists."""
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _unknown(name: str) -> str:
    """What to say about a name that is no key, with the nearest one that is."""
    below = sorted(key for key in KEY_BY_NAME if key.startswith(f"{name}."))
    if below:
        return f"is a section; its keys are {', '.join(below)}."
    leaf = name.upper().rpartition(".")[2]
    near = [key for key in KEY_BY_NAME if key.rpartition(".")[2] == leaf][:1]
    near = difflib.get_close_matches(name.upper(), KEY_BY_NAME, n=1, cutoff=0.9 if near else 0.6) or near
    hint = f"did you mean {near[0]}?" if near else "tools/print_config.py lists all keys."
    return f"is not a key; {hint}"
