"""Names to classes: the registries of models and datasets, here so that each can register without a circle."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from timesformer.utils.errors import ConfigError

T = TypeVar("T")


class Registry:
    """A table from public names to classes or functions: `@MODELS.register(NAME, ...)`, then `MODELS.get(NAME)`.

    Args:
        kind: what an entry is called in messages.
        filled_by: the module whose import registers the entries; it is imported when they are first needed.
    """

    def __init__(self, kind: str, filled_by: str) -> None:
        self.kind, self.filled_by = kind, filled_by
        self._entries: dict[str, Any] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator that files an object under each of `names`."""

        def add(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise ValueError(f"{self.kind} {name!r} is registered twice")
                self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Any:
        """The object filed under `name`.

        Raises:
            ConfigError: unknown name; the message lists the known ones and the nearest.
        """
        known = self.names()
        if name in known:
            return self._entries[name]
        near = difflib.get_close_matches(name, self._entries, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown {self.kind} {name!r}.{hint} Known: {', '.join(known)}.")

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        importlib.import_module(self.filled_by)
        return tuple(sorted(self._entries))


MODELS = Registry("model", "timesformer.models.build")
# of classes with the classmethod `from_config(cfg, split)` and `load() -> VideoList`
DATASETS = Registry("dataset", "timesformer.datasets.build")
