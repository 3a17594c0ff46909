"""Which forms of operations this process computes with, as the record of a checkpoint has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timesformer.models import cpu_kernels, gpu_kernels

CPU, GPU = "cpu_kernels", "gpu_kernels"  # the entries of a record


def record_of(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The record in the content of a checkpoint; its entries are empty where there is none."""
    entries = {name: content.get(name) for name in (CPU, GPU)}
    return {name: dict(entry) if isinstance(entry, Mapping) else {} for name, entry in entries.items()}


def use_kernels(record: Mapping[str, Any] | None) -> None:
    """Compute with the forms of a record, for other operations with the usual ones; None: with torch's own only."""
    found = record_of(record or {})
    cpu_kernels.use_forms(None if record is None else found[CPU])
    gpu_kernels.use_forms(found[GPU])
