"""The command `timesformer`: help on one screen, errors, and what is not imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import timesformer
from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "timesformer"]


def run(code: str, *words: str) -> str:
    """Runs Python code in the repository and returns what it prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    for name, (_, meaning) in COMMANDS.items():
        assert f"  {name:<10} {meaning}\n" in text
    assert main([]) == 2 and capsys.readouterr().err.startswith(text.rstrip())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_one_screen(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0 and lines[0].startswith(f"usage: timesformer {name} ")
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    if any("--cfg" in line for line in lines):
        assert "timesformer config" in "".join(lines)


def test_an_unknown_command_names_similar_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "--cfg", "x"]) == 2
    message = "error: 'trian' is not a command. Did you mean train? `timesformer --help` lists all commands.\n"
    assert capsys.readouterr().err == message
    assert main(["zzz"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_the_version_and_exit_statuses_of_a_process() -> None:
    done = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, f"timesformer {timesformer.__version__}\n")
    done = subprocess.run([*MODULE, "compare", "gone"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("\nerror: gone: no results.json there")


def test_a_reader_that_stops_early_is_no_error() -> None:
    """As in `timesformer config | head -1`."""
    process = subprocess.Popen([*MODULE, "config", "SOLVER"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1


def test_the_installed_command_is_this_one() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read pyproject.toml")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["timesformer"].partition(":")
    assert getattr(importlib.import_module(module), function) is main


def test_help_imports_no_heavy_library() -> None:
    code = """
import sys
from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli.main import COMMANDS, main
main(["--help"])
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as stopped:
        assert stopped.code == 0
print(*sys.modules)
"""
    heavy = {"torch", "numpy", "matplotlib", "cv2", "av", "torchvision", "timm", "sklearn", "huggingface_hub"}
    assert not heavy & set(run(code).splitlines()[-1].split())


def test_a_check_imports_only_what_it_uses(tiny: list[str], tmp_path: Path) -> None:  # noqa: F811
    code = """
import gc, sys
from timesformer.cli.main import main
assert main(["check", *sys.argv[1:]]) == 0
assert gc.isenabled() and gc.get_freeze_count() > 10_000
print(*sys.modules)
"""
    words = ["--cfg", "Gestures/LightTimeSformer_demo", *map(str, tiny), "OUTPUT_DIR", str(tmp_path / "out")]
    imported = set(run(code, *words).splitlines()[-1].split())
    unused = {"timm", "torchvision", "sklearn", "scipy", "matplotlib", "tensorboard", "torch.utils.tensorboard"}
    unused |= {"huggingface_hub", "transformers", "torchcodec", "submitit", "pandas", "timesformer.cost"}
    assert "torch" in imported and not unused & imported
