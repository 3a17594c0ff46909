"""What a load of weights did, for people and for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class LoadReport:
    """What a load did. Names are without prefixes such as `model.`.

    Attributes:
        source: as the user named it.
        kind: of the source, such as "TimeSformer" or "image ViT".
        is_ema: whether the weights are an average over training.
        has_ema: whether the source holds such an average, which was not taken.
        num_loaded: tensors of the model that came from the source: as they are, resized or copied.
        num_tensors: tensors of the model.
        share: of all parameters of the model, 0..1, that came from the source.
        coverage: the same of the backbone, which is everything but the head.
        resized: what was resized, from what to what.
        copied: tensors that got the values of another one.
        zeroed: tensors that were set to zero, so that what they scale adds nothing at first.
        initialised: tensors that keep their initialisation, with the reason.
        missing: other tensors that the source does not have.
        unexpected: tensors of the source that the model does not have.
        differences: settings in which model and source differ (only with `allow_partial`).
        classes: what was done about class names that are not the data's.
        class_names: of the source; empty when unknown.
        preprocessing: of the source, by the last part of the DATA keys; only what is known.
    """

    source: str
    kind: str
    is_ema: bool
    has_ema: bool
    num_loaded: int
    num_tensors: int
    share: float
    coverage: float
    resized: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    zeroed: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line, and one more for each list that is not empty."""
        kind = f"{self.kind}, moving average" if self.is_ema else self.kind
        first = (
            f"{self.source} ({kind}): loaded {self.num_loaded} of {self.num_tensors} tensors, "
            f"{percent(self.share)} of the parameters, {percent(self.coverage)} of the backbone's"
        )
        return "\n".join([first, *self.details()])

    def details(self) -> list[str]:
        """One line for each list that is not empty; names of many blocks are joined, long lists cut short."""
        titles = {"zeroed": "set to zero"}
        lists = ("resized", "copied", "zeroed", "initialised", "missing", "unexpected", "differences", "classes")
        return [f"  {titles.get(title, title)}: {some(names)}" for title in lists if (names := getattr(self, title))]


def percent(share: float) -> str:
    """The share 0..1 in percent, rounded down."""
    return f"{math.floor(1000 * share) / 10}%"  # never 100% of what is not whole


def some(names: Iterable[str], limit: int = 12) -> str:
    """The names, those that differ in numbers only joined to one with a count, the list cut short after `limit`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    parts = [members[0] if len(members) == 1 else f"{group} ({len(members)}x)" for group, members in groups.items()]
    return ", ".join(parts[:limit]) + (f" and {len(parts) - limit} more" if len(parts) > limit else "")
