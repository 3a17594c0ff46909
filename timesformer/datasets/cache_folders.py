"""Where cached frames lie: a folder that stays, or one in shared memory that goes with the run."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

from timesformer.utils.env import free_memory
from timesformer.utils.errors import ConfigError

SHARED_MEMORY = Path("/dev/shm")
GB = 1e9
LEFT_AFTER_SEC = 3600.0  # half a file that has not grown for so long

_held: dict[Path, int] = {}  # folders in shared memory that this process uses: descriptors of their locks


def disk_folder(folder: str) -> Path:
    """Makes the folder of a cache that stays; below the user's cache folder if `folder` is empty.

    Raises:
        ConfigError: it cannot be written.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(folder) if folder else home / "timesformer" / "frames"
    try:
        path.mkdir(parents=True, exist_ok=True)
        for left in path.glob("*.writing"):  # by processes that were killed; others write on
            if time.time() - left.stat().st_mtime > LEFT_AFTER_SEC:
                left.unlink()
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        problem = f"DATA_LOADER.CACHE disk cannot write into {path}: {error.strerror}"
        raise ConfigError(f"{problem}. Type DATA_LOADER.CACHE_DIR /a/folder/with/space") from error
    return path


def memory_folder(run: str) -> Path:
    """Makes a folder in shared memory for all processes of `run` on this machine; it goes when the last one ends.

    Each process holds a lock on it, which ends with the process, however that ends. Who can get the lock for itself
    alone is the last: at its own end or, for folders that killed runs have left, at the start of the next run.

    Args:
        run: what the processes of a run have in common: its output folder.

    Raises:
        ConfigError: there is no shared memory here.
    """
    prefix = f"timesformer-cache-{os.getuid()}-"
    folder = SHARED_MEMORY / (prefix + hashlib.sha256(os.path.abspath(run).encode()).hexdigest()[:16])
    if folder in _held:
        return folder
    if not os.access(SHARED_MEMORY, os.W_OK):
        raise ConfigError(
            f"DATA_LOADER.CACHE memory needs {SHARED_MEMORY}, which cannot be written here. Type DATA_LOADER.CACHE disk"
        )
    for left in SHARED_MEMORY.glob(f"{prefix}*"):
        if left not in _held:
            _remove_unless_used(left)
    while folder not in _held:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if folder.exists() and os.path.samestat(os.fstat(lock), folder.stat()):
            _held[folder] = lock
        else:  # another process has just removed it
            os.close(lock)
    atexit.register(_leave, folder, os.getpid())
    return folder


def check_space(folder: Path, told: str, num_bytes: int, stored_bytes: int, *, limit_gb: float) -> None:
    """See that frames fit.

    Args:
        folder: for them.
        told: the list and what it takes, for the message.
        num_bytes, stored_bytes: of all frames, and of those that lie there already.
        limit_gb: DATA_LOADER.CACHE_GB.

    Raises:
        ConfigError: they take more than the limit, or than there is.
    """
    if num_bytes > limit_gb * GB:
        raise ConfigError(
            f"{told}, more than DATA_LOADER.CACHE_GB {limit_gb:g}. "
            f"Type DATA_LOADER.CACHE_GB {math.ceil(1.05 * num_bytes / GB)}, or DATA_LOADER.CACHE none"
        )
    in_memory = SHARED_MEMORY in folder.parents
    free = shutil.disk_usage(folder).free
    if in_memory:
        free = min(free, free_memory() or free)
    if num_bytes - stored_bytes > free:
        other = "DATA_LOADER.CACHE disk" if in_memory else "DATA_LOADER.CACHE_DIR /a/folder/with/space"
        raise ConfigError(f"{told}, where {free / GB:.2f} GB are free. Type {other}, or DATA_LOADER.CACHE none")


def _leave(folder: Path, owner: int) -> None:
    if os.getpid() == owner and folder in _held:  # not in a process that the owner has forked
        fcntl.flock(_held[folder], fcntl.LOCK_UN)  # for its loader processes too
        os.close(_held.pop(folder))
        _remove_unless_used(folder)


def _remove_unless_used(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # somebody works with it
    finally:
        os.close(lock)
