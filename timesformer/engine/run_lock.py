"""One training for an output folder: a lock that names its holder, and that nobody has to remove by hand."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from filelock import FileLock, Timeout

from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

BEAT_SECONDS = 4.0  # between two signs of life of the holder
PATIENCE_SECONDS = 15.0  # for one, of a holder that cannot be asked for
SAME_START_SECONDS = 2.0  # within which two starts of a process number are one process


def _start_of(pid: int) -> float:
    """When a process started, in seconds since 1970; 0 where the system does not tell."""
    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return 0.0


class RunLock:
    """A context in which no other training uses `folder`.

    The system's lock of a file (`.run.lock`) goes with its process, but forks of the process hold it a little longer,
    and some shared file systems have none. So the holder also writes who it is (`.run.json`) and a number that counts
    on. A holder is gone when its process on this host has ended, when it was the same job of Slurm before its requeue,
    or when nobody has the lock and the number stands still. Checks, tests and previews take no lock.

    Raises:
        UserError: another training runs there; its host, process and start are named.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / ".run.json"
        self._lock = FileLock(folder / ".run.lock", timeout=0, thread_local=False)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="run lock")
        self._about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _start_of(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
            "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        }

    def __enter__(self) -> RunLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot write into OUTPUT_DIR {self.folder}: {error.strerror}. Set another OUTPUT_DIR"
            raise UserError(message) from error
        try:
            self._wait_for_the_end_of_another()
        except BaseException:
            self._lock.release()
            raise
        self._write(0)
        self._thread.start()
        return self

    def _wait_for_the_end_of_another(self) -> None:
        locked = self._try_to_lock()
        first, deadline = self._read(), time.monotonic() + PATIENCE_SECONDS
        while True:
            holder = self._read()
            beats = bool(holder and holder.get("beat") != (first or {}).get("beat"))
            if beats or self._is_here(holder):
                raise self._refusal(holder)
            here = holder is not None and holder["host"] == self._about["host"]
            if self._requeued(holder) or (locked and (here or not holder)):
                break
            if time.monotonic() > deadline:
                if locked or here:  # no sign of life; or forks of a dead holder still keep the lock
                    break
                raise self._refusal(holder)
            time.sleep(0.2)
            locked = locked or self._try_to_lock()
        if holder:
            log.debug("a training that was killed used the folder before: %s", holder)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(BEAT_SECONDS)
        with contextlib.suppress(OSError):
            self.file.unlink()
        self._lock.release()

    def _try_to_lock(self) -> bool:
        try:
            self._lock.acquire()
        except Timeout:
            return False
        except (OSError, NotImplementedError):  # a file system without locks: the file alone has to do
            return True
        return True

    def _requeued(self, holder: dict[str, Any] | None) -> bool:
        """Whether the holder was this job of Slurm before it was requeued."""
        job, times = self._about["slurm_job"], self._about["restarts"]
        return bool(holder and job and holder.get("slurm_job") == job and holder.get("restarts", 0) < times)

    def _is_here(self, holder: dict[str, Any] | None) -> bool:
        """Whether the holder is a living process of this host."""
        if holder is None or holder.get("host") != self._about["host"]:
            return False
        try:
            process = psutil.Process(holder["pid"])
            started = process.create_time()
            return process.status() != psutil.STATUS_ZOMBIE and abs(started - holder["started"]) < SAME_START_SECONDS
        except (psutil.Error, OSError, KeyError, TypeError, ValueError):
            return False

    def _refusal(self, holder: dict[str, Any] | None) -> UserError:
        who, holder = "another training", holder or {}
        if holder:
            job = f", Slurm job {holder['slurm_job']}" if holder.get("slurm_job") else ""
            who += f" (host {holder.get('host')}, process {holder.get('pid')}{job}, since {holder.get('since')})"
        return UserError(
            f"OUTPUT_DIR {self.folder} is in use by {who}. Wait for it, stop it "
            f"(kill {holder.get('pid', 'PID')}), or set another OUTPUT_DIR"
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "host" in found else None

    def _write(self, beat: int) -> None:
        with contextlib.suppress(OSError):  # a full disk or a folder that was removed ends no training
            temporary = self.file.with_suffix(".writing")
            temporary.write_text(json.dumps({**self._about, "beat": beat}))
            temporary.replace(self.file)

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT_SECONDS):
            beat += 1
            self._write(beat)
