"""Where the messages of a run go."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from timesformer.utils.logging import get_logger, setup_logging


@pytest.fixture(autouse=True)
def _restore_project_logger() -> Iterator[None]:
    root = logging.getLogger("timesformer")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level, root.propagate = before


def test_console_is_plain_and_file_has_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path / "run")
    get_logger("timesformer.engine.train").info("epoch 1 of 2")
    get_logger("__main__").warning("clip too long")
    assert capsys.readouterr().out == "epoch 1 of 2\nWARNING: clip too long\n"
    lines = (tmp_path / "run/log.txt").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO epoch 1 of 2", lines[0])
    assert lines[1].endswith("WARNING clip too long")


def test_setting_up_twice_prints_once_and_appends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for message in ("first", "second"):
        setup_logging(tmp_path)
        get_logger().info(message)
    assert capsys.readouterr().out == "first\nsecond\n"
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_other_processes_print_errors_only_and_write_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging(tmp_path, is_main=False)
    get_logger().warning("said by the first process already")
    get_logger().error("broken")
    assert capsys.readouterr().out == "ERROR: broken\n"
    assert not (tmp_path / "log.txt").exists()


def test_defect_20_importing_the_log_module_imports_nothing_heavy() -> None:
    code = "import sys, timesformer.utils.logging; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "numpy", "matplotlib", "torchvision", "fvcore", "timm", "av", "cv2"}
