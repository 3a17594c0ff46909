"""Names to classes: the registries of models and datasets, here so that each can register without a circle."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from timesformer.utils.errors import ConfigError

T = TypeVar("T")


class Registry:
    """A table from public names to classes or functions.

    Example:
        >>> @MODELS.register("TimeSformer", "vit_base_patch16_224")
        ... class TimeSformer: ...
        >>> MODELS.get("TimeSformer")
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
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
        if name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, self._entries, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown {self.kind} {name!r}.{hint} Known: {', '.join(self.names())}.")

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._entries))


MODELS = Registry("model")
DATASETS = Registry("dataset")  # of classes with the classmethod `from_config(cfg, split)` and `load() -> VideoList`
