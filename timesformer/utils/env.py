"""What a run runs on: CPUs, memory, devices, versions of what can change a result, the revision of the code."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from timesformer.utils.errors import ConfigError

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "torchcodec")
CGROUP = Path("/sys/fs/cgroup")
NO_LIMIT = 2**31  # CPUs


@dataclass(frozen=True)
class SlurmTask:
    """One of the tasks that one `srun` started."""

    rank: int  # among all tasks, from 0
    num_tasks: int
    local_rank: int  # among those of this node
    tasks_on_node: int
    even: bool  # every node has equally many
    host: str  # where the tasks meet
    port: int  # of this job and step, at that host

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> SlurmTask | None:
        """This task; None where srun started no other beside it (in the script of sbatch, too)."""
        num_tasks = whole_number(environ, "SLURM_STEP_NUM_TASKS", 1)
        if num_tasks == 1:
            return None
        runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", environ["SLURM_STEP_TASKS_PER_NODE"])  # such as 2(x3),1
        per_node = [int(tasks) for tasks, nodes in runs for _ in range(int(nodes or 1))]
        job, step = (whole_number(environ, name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return cls(
            rank=whole_number(environ, "SLURM_PROCID"),
            num_tasks=num_tasks,
            local_rank=whole_number(environ, "SLURM_LOCALID"),
            tasks_on_node=per_node[whole_number(environ, "SLURM_NODEID")],
            even=len(set(per_node)) == 1,
            host="localhost" if len(per_node) == 1 else first_host(environ["SLURM_STEP_NODELIST"]),
            port=10_000 + (101 * job + step) % 20_000,  # below the ports that systems give to clients
        )


def whole_number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """The number of a variable of the environment; `default` where it is not set, or empty.

    Raises:
        ConfigError: it has no number.
    """
    text = environ.get(name) or ("" if default is None else str(default))
    if not text.strip().isdecimal():
        raise ConfigError(f"the environment variable {name} is {text!r}, not a whole number. Type: unset {name}")
    return int(text)


def first_host(nodes: str) -> str:
    """The first of a list of nodes as Slurm writes it: rack1-n02 of "rack[1,3]-n[02-05],gpu7"."""
    (first,) = re.findall(r"^(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", first)


def available_cpus() -> int:
    """CPUs this process and its children may use.

    That is by the affinity mask (Slurm, taskset), the container's quota (Docker), and what Slurm gave to the task.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_cpus(CGROUP), _slurm_cpus(os.environ)))


def _slurm_cpus(environ: Mapping[str, str]) -> int:
    """CPUs that Slurm gave to this task, or to the job on this node; `NO_LIMIT` outside of Slurm."""
    task, on_node = SlurmTask.read(environ), environ.get("SLURM_CPUS_ON_NODE")
    in_step = "SLURM_STEP_NUM_TASKS" in environ
    if in_step and environ.get("SLURM_CPUS_PER_TASK"):  # in the script of sbatch it is not what the script itself has
        return whole_number(environ, "SLURM_CPUS_PER_TASK")
    return whole_number(environ, "SLURM_CPUS_ON_NODE") // (task.tasks_on_node if task else 1) if on_node else NO_LIMIT


def _cgroup_cpus(root: Path) -> int:
    """CPUs that the control group's quota allows, rounded up; `NO_LIMIT` where there is no quota."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup v2, v1
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no quota
            quota, period = " ".join((root / name).read_text() for name in names).split()
            if float(quota) > 0:
                return math.ceil(float(quota) / float(period))
    return NO_LIMIT


def let_waiting_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Have CPU threads sleep when they have waited some microseconds for one another; call it before `import torch`.

    Without it they spin for milliseconds. Beside another program that uses the same cores each then waits for one that
    is not running: two threads took 13 times the CPU time of one, and ten times as long.
    """
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", "1000")


def processes_that_share_cpus(local_world_size: int) -> int:
    """How many of the `local_world_size` training processes of this node share `available_cpus`.

    A task of srun has its own; processes that torchrun or this program started share those of the launcher.
    """
    task = SlurmTask.read(os.environ)
    return max(1, local_world_size // (task.tasks_on_node if task else 1))


def free_memory(group: Path = CGROUP) -> int | None:
    """Bytes that this process may still use, by the system and its control group; None where that is unknown."""
    try:
        free = psutil.virtual_memory().available
    except OSError:  # Linux without /proc
        return None
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max": no limit
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(counts["inactive_file"]))  # cached files make room
    return free


def collect_versions() -> dict[str, Any]:
    """Versions of Python, the libraries and FFmpeg, the devices, and the revision of the code; JSON-ready.

    Returns:
        `git` is None unless the package runs from a checkout; `dirty` there: files differ from `revision`.
    """
    import av  # heavy, and not needed to count CPUs
    import torch

    from timesformer import __version__

    return {
        "timesformer": __version__,
        "git": git_state(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version for name in LIBRARIES if (version := _installed_version(name))},
        "ffmpeg": {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cpu": cpu_name(),
        "cpus": available_cpus(),
        "threads": torch.get_num_threads(),
    }


def cpu_name(file: Path = Path("/proc/cpuinfo")) -> str:
    """The model of the CPU, or at least its architecture."""
    with contextlib.suppress(OSError, StopIteration):
        lines = file.read_text(errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def git_state(root: Path) -> dict[str, Any] | None:
    """`{"revision": ..., "dirty": ...}` of the checkout with top folder `root`; None when it is not one.

    In a copy of a checkout that `submit` made, what was found in the checkout.
    """
    if (copied := root / "revision.json").is_file():
        state: dict[str, Any] | None = json.loads(copied.read_text())
        return state
    top = _git(root, "rev-parse", "--show-toplevel")
    revision = _git(root, "rev-parse", "HEAD") if top and Path(top).resolve() == root.resolve() else None
    return {"revision": revision, "dirty": _git(root, "status", "--porcelain") != ""} if revision else None


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, stripped; None when it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _installed_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None
