"""Arrays of an answer pass through shared memory, without a name and of any size."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from timesformer.datasets.shared_answers import SharedAnswers

needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has memfd")
CLIP = np.arange(3 * 8 * 32 * 32, dtype=np.uint8).reshape(3, 8, 32, 32)


@pytest.fixture
def sides() -> Iterator[tuple[SharedAnswers, SharedAnswers]]:
    """The two sides of one memory."""
    own = SharedAnswers()
    yield own, SharedAnswers(os.dup(own.descriptor) if own.descriptor >= 0 else -1)


def same(result: Any, expected: Any) -> bool:
    return bool(result.dtype == expected.dtype and np.array_equal(result, expected) and result.flags.writeable)


@pytest.mark.parametrize("array", [CLIP, CLIP.T, CLIP[:, ::2], np.arange(3.0), np.zeros((0, 3)), np.array(7)])
def test_arrays_of_every_layout_come_back(sides: tuple[SharedAnswers, SharedAnswers], array: np.ndarray) -> None:
    theirs, own = sides
    name, first, second = own.loads(theirs.dumps(("clip", array, CLIP)))
    assert name == "clip" and same(first, array) and same(second, CLIP)


@needs_memfd
def test_the_memory_grows_and_earlier_answers_stay(sides: tuple[SharedAnswers, SharedAnswers]) -> None:
    theirs, own = sides
    in_files = set(os.listdir("/dev/shm"))
    sizes = (10, 10**6, 100, 3 * 10**6)
    messages, answers = [], []
    for size in sizes:
        messages.append(theirs.dumps(np.full(size, size % 251, np.uint8)))
        answers.append(own.loads(messages[-1]))
    assert all(same(answer, np.full(size, size % 251, np.uint8)) for answer, size in zip(answers, sizes, strict=True))
    assert max(map(len, messages)) < 1000 and set(os.listdir("/dev/shm")) == in_files


@needs_memfd
def test_without_memory_the_message_holds_all(
    sides: tuple[SharedAnswers, SharedAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    theirs, own = sides
    monkeypatch.setattr(os, "posix_fallocate", full)
    message = theirs.dumps(CLIP)
    assert len(message) > CLIP.nbytes and same(own.loads(message), CLIP)


def test_systems_without_memfd_use_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    own = SharedAnswers()
    assert own.descriptor == -1 and same(own.loads(SharedAnswers(-1).dumps(CLIP)), CLIP)
