"""What versions.json records, and how many CPUs there are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from timesformer.utils import env


def test_versions_name_what_can_change_a_result_and_fit_into_json() -> None:
    versions = json.loads(json.dumps(env.collect_versions()))
    assert {"python", "libraries", "ffmpeg", "cuda", "devices", "git", "timesformer"} <= versions.keys()
    assert {"torch", "torchvision", "av", "timm"} <= versions["libraries"].keys()
    assert "libavcodec" in versions["ffmpeg"]


def test_git_state_tells_clean_from_dirty_and_knows_its_own_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert env.git_state(tmp_path) is None
    git("init")
    assert env.git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    clean = env.git_state(tmp_path)
    assert clean is not None and len(clean["revision"]) == 40 and clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert env.git_state(tmp_path) == {**clean, "dirty": True}

    (tmp_path / "inside").mkdir()  # such as site-packages in somebody else's checkout
    assert env.git_state(tmp_path / "inside") is None


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 2**31),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2**31),
        ({}, 2**31),
    ],
)
def test_cpu_quota_of_a_container_counts(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert env._cgroup_cpus(tmp_path) == cpus
    assert env.available_cpus() >= 1
