"""Seeded damage of files: flipped bits, zeros, noise and cuts."""

from __future__ import annotations

import random

KINDS = ("flip", "flips", "zeros", "noise", "cut")


def damaged(data: bytes, generator: random.Random) -> tuple[str, bytes]:
    """The kind of damage, and a damaged copy of `data`."""
    kind, changed = generator.choice(KINDS), bytearray(data)
    start, length = generator.randrange(len(data)), generator.choice((4, 64, 1000))
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else 8):
            changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif kind == "zeros":
        changed[start : start + length] = bytes(len(changed[start : start + length]))
    elif kind == "noise":
        changed[start : start + length] = generator.randbytes(len(changed[start : start + length]))
    else:
        del changed[start:]
    return kind, bytes(changed)
