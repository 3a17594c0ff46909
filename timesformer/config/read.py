"""YAML files and `KEY VALUE` words to a list of settings, each with its location; only their form is checked."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import yaml

from timesformer.config.defaults import KEY_BY_NAME
from timesformer.config.locate import bundled_config
from timesformer.utils.files import not_a_file
from timesformer.utils.paths import expand_path

BASE_KEY = "_BASE_"
COMMAND_LINE = "command line"
MAX_LETTERS, MAX_NODES, MAX_DEPTH = 1_000_000, 100_000, 20  # of a YAML text: many times what a configuration has
_SECTIONS = {name.rpartition(".")[0] for name in KEY_BY_NAME} - {""}


@dataclass
class Settings:
    """What files and words set, in order, and what is wrong with their form."""

    found: list[tuple[str, Any, str]] = field(default_factory=list)  # (key, value, location such as file.yaml:12)
    problems: list[str] = field(default_factory=list)
    complete: bool = True  # False if a part could not be read

    def add_file(self, path: str, named_by: str = COMMAND_LINE, chain: tuple[str, ...] = ()) -> None:
        """Add the settings of a YAML file, those of its `_BASE_` files first.

        Args:
            path: the file.
            named_by: the location that names it.
            chain: the files that lead to it.
        """
        if os.path.realpath(path) in chain:
            circle = " -> ".join(map(os.path.basename, (*chain, path)))
            return self.fail(f"{named_by}: {BASE_KEY} goes round in a circle: {circle}.")
        if kind := not_a_file(path):
            return self.fail(f"{named_by}: cannot read config file {path!r}: it is {kind}.")
        try:
            with open(path, encoding="utf-8-sig") as stream:
                loader, root = compose(stream.read(MAX_LETTERS + 1))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            return self.fail(f"{named_by}: cannot read config file {path!r}: {reason}.")
        except yaml.YAMLError as error:
            line = f":{mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
            return self.fail(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}.")
        if root is None:  # an empty file
            return None
        if not isinstance(root, yaml.MappingNode):
            return self.fail(f"{path}:1: the file must consist of KEY: value lines and sections.")
        for location, bases in [(_location(path, key), value) for key, value in root.value if key.value == BASE_KEY]:
            bases = loader.construct_object(bases, deep=True)
            bases = [bases] if isinstance(bases, str) else bases
            if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
                self.fail(f"{location}: {BASE_KEY} must be a path or a list of paths, found {bases!r}.")
                continue
            for base in bases:
                try:
                    beside = os.path.normpath(os.path.join(os.path.dirname(path), expand_path(base)))
                except ValueError as error:
                    self.fail(f"{location}: {BASE_KEY} {base}: {error}.")
                    continue
                packaged = None if os.path.exists(beside) else bundled_config(base)
                self.add_file(str(packaged or beside), location, (*chain, os.path.realpath(path)))
        return self._add_section(root, "", path, loader, {})

    def _add_section(
        self, node: yaml.MappingNode, prefix: str, path: str, loader: yaml.SafeLoader, seen: dict[str, str]
    ) -> None:
        """Add the settings below one mapping; `seen` has the names of this file so far, with their locations."""
        for key_node, value_node in node.value:
            name, location = f"{prefix}{key_node.value}", _location(path, key_node)
            if name in seen:
                self.problems.append(f"{location}: {name} is given twice, first in {seen[name]}; keep one.")
            seen[name] = location
            if isinstance(value_node, yaml.MappingNode):
                self._add_section(value_node, f"{name}.", path, loader, seen)
            elif name != BASE_KEY:
                try:
                    value = _construct(loader, value_node, is_text=_is_text(name))
                except (yaml.YAMLError, ValueError) as error:  # a tag, or a date that does not exist
                    self.fail(f"{location}: {name}: {getattr(error, 'problem', None) or error}")
                    continue
                if not (name in _SECTIONS and value is None):  # a section whose lines are all commented out
                    self.found.append((name, value, location))

    def add_words(self, words: Sequence[Any]) -> None:
        """Add the settings of the command line."""
        if len(words) % 2:
            shape = re.compile(r"[A-Z_]+(\.[A-Z0-9_]+)*")
            is_key = [bool(shape.fullmatch(str(word))) or str(word).upper() in KEY_BY_NAME for word in words]
            alone = next((i for i, pair in enumerate(pairwise([*is_key, True])) if pair[0] == pair[1]), 0)
            wrong = f"{words[alone]!r} {'has no value' if is_key[alone] else 'has no KEY'}"
            self.fail(f"{COMMAND_LINE}: settings are KEY VALUE pairs, but {wrong} in: {' '.join(map(str, words))}")
            return
        for name, word in zip(words[::2], words[1::2], strict=True):
            value = _parse_word(word, is_text=_is_text(name)) if isinstance(word, str) else word
            self.found.append((str(name), value, COMMAND_LINE))

    def fail(self, problem: str) -> None:
        """Report a part that could not be read."""
        self.problems.append(problem)
        self.complete = False


class _Loader(yaml.SafeLoader):
    """Stops at a depth that no configuration has, long before Python does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(text: str) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """The nodes of a YAML text, bounded in size, depth and in what its aliases stand for; and the loader for them.

    Raises:
        yaml.YAMLError: it is not valid, or larger.
    """

    def count(node: yaml.Node, depth: int) -> int:
        """Nodes from `node` down, those of an alias at each place where it stands."""
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels, or an alias that holds itself")
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = 1
        for part in parts:
            nodes += sum(count(each, depth + 1) for each in (part if isinstance(part, tuple) else (part,)))
            if nodes > MAX_NODES:
                raise yaml.YAMLError(f"more than {MAX_NODES} values (with those that aliases stand for)")
        return nodes

    if len(text) > MAX_LETTERS:
        raise yaml.YAMLError(f"more than {MAX_LETTERS} letters: no configuration is that large")
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is not None:
        count(root, 0)
    return loader, root


def _read_yaml(text: str) -> Any:
    loader, root = compose(text)
    return None if root is None else loader.construct_document(root)


def _location(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _is_text(name: str) -> bool:
    return name in KEY_BY_NAME and KEY_BY_NAME[name].kind in ("str", "path", "pattern")


def _construct(loader: yaml.SafeLoader, node: yaml.Node, *, is_text: bool) -> Any:
    """The value of a YAML node; for text, numbers and dates stay as written."""
    as_written = is_text and isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":null", ":bool"))
    return node.value if as_written else loader.construct_object(node, deep=True)


def _parse_word(word: str, *, is_text: bool) -> Any:
    """A word of the command line, read as in YAML, tuples as lists; text stays as it is, without quotes around it."""
    if is_text:
        return word[1:-1] if re.fullmatch(r"'.*'|\".*\"", word, re.DOTALL) else word
    for read in (_read_yaml, ast.literal_eval):
        try:
            value = read(word)
        except (yaml.YAMLError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if not (isinstance(value, str) and word.startswith("(")):
            return value
    return word
