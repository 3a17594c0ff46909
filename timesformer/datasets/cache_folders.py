"""Where cached frames are stored: a folder that stays, or one in shared memory that is removed with the run."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from timesformer.utils.env import free_memory
from timesformer.utils.errors import ConfigError
from timesformer.utils.paths import user_cache

SHARED_MEMORY = Path("/dev/shm")
GB = 1e9
MB = 1e6
LOCK_LIMIT_SEC = 60.0  # another process holds the common lock for milliseconds
ABANDONED_AFTER_SEC = 3600.0  # an unfinished file that has not grown for so long

_held: dict[Path, FileLock] = {}  # folders in shared memory that this process uses, and its lock in each


def disk_folder(folder: str) -> Path:
    """Makes the folder of a cache that stays; below the user's cache folder if `folder` is empty.

    Raises:
        ConfigError: it cannot be written.
    """
    path = Path(folder or user_cache() / "frames")
    try:
        path.mkdir(parents=True, exist_ok=True)
        for unfinished in path.glob("*.writing"):  # by processes that were killed; others are still writing
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                if time.time() - unfinished.stat().st_mtime > ABANDONED_AFTER_SEC:
                    unfinished.unlink()
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        problem = f"DATA_LOADER.CACHE disk cannot write into {path}: {error.strerror}"
        raise ConfigError(f"{problem}. Type DATA_LOADER.CACHE_DIR /a/folder/with/space") from error
    return path


def memory_folder(run: str) -> Path:
    """Makes a folder in shared memory for all processes of a run on this machine; the last one that ends removes it.

    What identifies the run is its output folder. Each process locks a file of its own in the folder, and the system
    unlocks it however the process ends. A folder without a locked file is removed: at the end of its last process or,
    after a kill, at the start of the next run.

    Raises:
        ConfigError: there is no shared memory here.
    """
    if not os.access(SHARED_MEMORY, os.W_OK):
        raise ConfigError(
            f"DATA_LOADER.CACHE memory needs {SHARED_MEMORY}, which cannot be written here. Type DATA_LOADER.CACHE disk"
        )
    folder = SHARED_MEMORY / (_prefix() + hashlib.sha256(os.fsencode(os.path.abspath(run))).hexdigest()[:16])
    if folder not in _held:
        with _common_lock():  # nobody joins a folder while it is removed
            _remove_abandoned()
            folder.mkdir(mode=0o700, exist_ok=True)
            _held[folder] = FileLock(folder / f"{uuid4().hex}.lock", thread_local=False)
            _held[folder].acquire()
        atexit.register(_leave, folder, os.getpid())
    return folder


def remove_abandoned() -> None:
    """Remove the folders in shared memory that killed runs have left.

    Raises:
        ConfigError: shared memory cannot be used here.
    """
    with _common_lock():
        _remove_abandoned()


def _remove_abandoned() -> None:
    for other in {*SHARED_MEMORY.glob(f"{_prefix()}*")} - _held.keys():
        _remove_unless_used(other)


def check_space(folder: Path, summary: str, num_bytes: int, stored_bytes: int, *, limit_gb: float) -> None:
    """Check that frames fit into `folder`; `summary` is the list and what it takes, for the message.

    Raises:
        ConfigError: all frames take more than the limit, or those that are not stored yet more than the free space.
    """
    if num_bytes > limit_gb * GB:
        raise ConfigError(
            f"{summary}, more than DATA_LOADER.CACHE_GB {limit_gb:g}. "
            f"Type DATA_LOADER.CACHE_GB {math.ceil(1.05 * num_bytes / GB)}, or DATA_LOADER.CACHE none"
        )
    in_memory = SHARED_MEMORY in folder.parents
    free = free_shared_memory() if in_memory else shutil.disk_usage(folder).free
    if num_bytes - stored_bytes > free:
        other = "DATA_LOADER.CACHE disk" if in_memory else "DATA_LOADER.CACHE_DIR /a/folder/with/space"
        raise ConfigError(f"{summary}, where {free / GB:.2f} GB are free. Type {other}, or DATA_LOADER.CACHE none")


def free_shared_memory() -> int:
    """Bytes that frames in shared memory may take: what is free there and in the memory; 0 where there is none."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        return 0
    free = shutil.disk_usage(SHARED_MEMORY).free
    return min(free, free_memory() or free)


def check_shared_memory(num_bytes: int, pending_bytes: int, what: str) -> None:
    """Check that batches of `what`, with the frames still to be cached there, fit into shared memory.

    Raises:
        ConfigError: they do not; loader processes would have to stop.
    """
    if not num_bytes or not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if num_bytes + pending_bytes > free:
        cached = f", and the cached frames {pending_bytes / MB:,.1f} MB," if pending_bytes else ""
        size = math.ceil(1.2 * (num_bytes + pending_bytes) / MB)
        raise ConfigError(
            f"the batches of {what} need {num_bytes / MB:,.1f} MB of shared memory{cached} and {SHARED_MEMORY} has "
            f"{free / MB:,.1f} MB free. In Docker add: --shm-size {size}m (or --ipc=host); else fewer loader processes "
            "or clips: DATA_LOADER.NUM_WORKERS 0 needs none"
        )


def shared_memory_error() -> str:
    """Why a loader process could not pass on its clips."""
    free = f"{shutil.disk_usage(SHARED_MEMORY).free / MB:,.1f} MB" if SHARED_MEMORY.is_dir() else "nothing"
    return (
        f"a loader process got no shared memory for its clips: {SHARED_MEMORY} has {free} free. In Docker add: "
        "--shm-size 8g (or --ipc=host); else lower DATA_LOADER.NUM_WORKERS (0 needs none) or the batch size"
    )


def _prefix() -> str:
    """Of the names in shared memory, which are those of this user."""
    return f"timesformer-cache-{getattr(os, 'getuid', lambda: 0)()}-"


@contextlib.contextmanager
def _common_lock() -> Iterator[None]:
    file = SHARED_MEMORY / f"{_prefix()}lock"
    try:
        with FileLock(file, timeout=LOCK_LIMIT_SEC):
            yield
    except (Timeout, OSError) as error:
        raise ConfigError(
            f"DATA_LOADER.CACHE memory: cannot use {SHARED_MEMORY} ({error}). Another process may hold it, see: "
            f"fuser {file}. Or type DATA_LOADER.CACHE disk"
        ) from error


def _leave(folder: Path, owner: int) -> None:
    if os.getpid() == owner and folder in _held:  # not in a process that the owner has forked
        with contextlib.suppress(ConfigError), _common_lock():
            _held.pop(folder).release()
            _remove_unless_used(folder)


def _remove_unless_used(folder: Path) -> None:
    try:
        for file in folder.glob("*.lock"):
            FileLock(file, timeout=0).acquire().lock.release()  # of a process that has ended
    except Timeout:
        return
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
