"""Configurations are found by path or by name, in a checkout and in an installed wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from timesformer.config import find_config, load_config
from timesformer.config.locate import bundled_configs
from timesformer.utils.errors import ConfigError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"


@pytest.mark.parametrize("prefix", ["", "configs/"])
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_names_of_the_package(prefix: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(f"{prefix}Gestures/LightTimeSformer_demo{suffix}").samefile(DEMO)


def test_a_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    local = tmp_path / "configs/Gestures/LightTimeSformer_demo.yaml"
    local.parent.mkdir(parents=True)
    local.write_text("RNG_SEED: 5")
    name = "configs/Gestures/LightTimeSformer_demo.yaml"
    assert find_config(name) == Path(name) and find_config(local) == local
    assert load_config(name).set_by_user == {"RNG_SEED": f"{name}:1"}


def test_unknown_names_list_similar_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="'Gestures/LightTimeSformer_dem': No such file or directory.* Did you mean Gestures/Light"
    ):
        find_config("Gestures/LightTimeSformer_dem")
    with pytest.raises(ConfigError, match=f"Those of the package are in {bundled_configs()}"):
        find_config(tmp_path / "qqq.yaml")


def test_a_missing_file_is_reported_with_all_other_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^2 problems") as caught:
        load_config("Gestures/LightTimeSformer_dem", ["RNG_SEED", "x", "SHARD_ID", "1"])
    assert "command line: cannot read config file 'Gestures/LightTimeSformer_dem'" in str(caught.value)


def test_the_wheel_carries_the_configurations(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source, wheels, site, empty = (tmp_path / name for name in ("source", "wheels", "site", "empty"))
    source.mkdir()
    empty.mkdir()
    for name in ("timesformer", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    wheel = next(wheels.glob("*.whl"))
    files = zipfile.ZipFile(wheel).namelist()
    assert "timesformer/visualization/report.html" in files
    packed = {name for name in files if name.endswith(".yaml")}
    assert packed == {f"timesformer/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from timesformer.config import load_config\n"
        "for name in ('Gestures/LightTimeSformer_demo', 'configs/Gestures/LightTimeSformer_demo.yaml'):\n"
        "    loaded = load_config(name)\n"
        "    print(loaded.set_by_user['MODEL.MODEL_NAME'], loaded.set_by_user['TIMESFORMER.DEPTH'])\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=empty, check=True, capture_output=True, text=True)
    configs = site / "timesformer/configs"
    line = f"{configs}/Gestures/LightTimeSformer_demo.yaml:5 {configs}/_base_/gestures_demo.yaml:19"
    assert done.stdout.splitlines() == [line, line]
