"""What a run runs on: CPUs, devices, versions of what can change a result, the revision of the code."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "torchcodec")


def available_cpus() -> int:
    """CPUs this process may use, by its affinity mask (Slurm, taskset) and its container's quota (Docker)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_cpus(Path("/sys/fs/cgroup"))))


def _cgroup_cpus(root: Path) -> int:
    """CPUs that the control group's quota allows, rounded up; a huge number where there is no quota."""
    quotas = (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # cgroup v2, v1
    for name, period_name in quotas:
        try:
            words = (root / name).read_text().split()
            quota, period = words if period_name is None else (words[0], (root / period_name).read_text())
            if float(quota) > 0:
                return math.ceil(float(quota) / float(period))
        except (OSError, ValueError):  # no such file, or "max": no quota
            continue
    return 2**31


def collect_versions() -> dict[str, Any]:
    """Versions of Python, the libraries and FFmpeg, the devices, and the revision of the code; JSON-ready.

    Returns:
        `git` is None unless the package runs from a checkout; `dirty` there: files differ from `revision`.
    """
    import av  # heavy, and of no use to who only counts CPUs
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
        "cpus": available_cpus(),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """`{"revision": ..., "dirty": ...}` of the checkout with top folder `root`; None when it is not one."""
    top = _git(root, "rev-parse", "--show-toplevel")
    revision = _git(root, "rev-parse", "HEAD")
    if not top or not revision or Path(top).resolve() != root.resolve():
        return None
    return {"revision": revision, "dirty": _git(root, "status", "--porcelain") != ""}


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, stripped; None when it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _installed_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
