"""When memory runs out: the same work in smaller pieces, or an error that says what needs less."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import TypeVar

import torch

from timesformer.utils.console import count
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

SMALLER_CLIP = (
    "MODEL.RECOMPUTE blocks (in training), a smaller DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE, or a smaller "
    "DATA.NUM_FRAMES"
)
_TEXTS = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an operation of torch in this process got no memory, on any device."""
    text = str(error)
    own = not text.startswith("Caught ")  # else torch passes on what a loader process raised
    return isinstance(error, torch.OutOfMemoryError) or (own and any(each in text for each in _TEXTS))


@dataclass
class PassSize:
    """The most clips of one pass of a model; halved, for good, when the memory does not suffice.

    Attributes:
        clips: of a pass.
        key: the setting that makes it smaller from the start, per node.
        smallest: it is never less, but where there are fewer clips.
        processes: of this node, which share the setting.
    """

    clips: int = sys.maxsize
    _: KW_ONLY
    key: str
    smallest: int = 1
    processes: int = 1

    def until_it_fits(
        self, work: Callable[[int], T], device: torch.device, present: Callable[[], int], *, warn: bool = True
    ) -> T:
        """The result of `work(clips)`, which is called again with half as many whenever memory runs out.

        Args:
            work: leaves nothing behind when it fails.
            device: whose memory it takes.
            present: the number of clips of its largest pass, when it has failed.
            warn: log the new size, once.

        Raises:
            UserError: not even the smallest pass fits.
        """
        before = self.clips
        while True:
            try:
                result = work(self.clips)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                most = min(self.clips, present())
                if most <= self.smallest:
                    raise self._error(error, device, most) from error
                self.clips = max(self.smallest, most // 2)
            free_cached(device)  # here: the error held what the pass had made
        if warn and self.clips < before:
            log.warning(
                "out of memory on %s: from now on %s in a forward pass, for the same result. To start so: %s %d",
                *(device, count(self.clips, "clip"), self.key, self.clips * self.processes),
            )
        return result

    def _error(self, error: RuntimeError, device: torch.device, most: int) -> UserError:
        return UserError(
            f"out of memory on {device} with {count(most, 'clip')} in a forward pass ({first_line(error)}). "
            f"A clip needs less with {SMALLER_CLIP}"
        )


def reserved_bytes(device: torch.device) -> int:
    """A twentieth of the memory of an accelerator: what a trial leaves free for what differs later."""
    info = getattr(torch.get_device_module(device), "mem_get_info", None)
    return info(device)[1] // 20 if info else 0


def free_cached(device: torch.device) -> None:
    """Give back the memory that torch keeps for later tensors of an accelerator."""
    if release := getattr(torch.get_device_module(device), "empty_cache", None):
        release()


def first_line(error: RuntimeError) -> str:
    """The start of its message."""
    return str(error).strip().partition("\n")[0][:200]


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Report a lack of memory where nothing can be cut into pieces, such as for weights, as a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory ({first_line(error)}). Less is needed with a smaller TRAIN.BATCH_SIZE and TEST.BATCH_SIZE, "
            f"{SMALLER_CLIP}; for the optimiser with several GPUs DIST.STRATEGY fsdp, or fewer TRAIN.TRAINABLE_BLOCKS"
        ) from error
