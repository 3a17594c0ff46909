"""The window of `timesformer live --show`, on a virtual display whose pixels are read."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from timesformer.utils.errors import UserError
from timesformer.video.window import Window


@pytest.fixture
def display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that holds the pixels of a display of its own."""
    pytest.importorskip("tkinter", reason="Python without Tk")
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb here")
    words = ["Xvfb", "-displayfd", "1", "-screen", "0", "320x240x24", "-fbdir", str(tmp_path)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    monkeypatch.setenv("DISPLAY", f":{server.stdout.readline().strip()}")
    yield tmp_path / "Xvfb_screen0"
    server.terminate()
    server.wait(30)


def pixels_of(display: Path, color: tuple[int, int, int]) -> int:
    """How many pixels of the display have the colour."""
    pixels = np.frombuffer(display.read_bytes()[-320 * 240 * 4 :], np.uint8).reshape(-1, 4)
    return int((pixels[:, 2::-1] == color).all(axis=1).sum())


def until(count: int, display: Path, color: tuple[int, int, int]) -> None:
    for _ in range(300):
        if pixels_of(display, color) == count:
            return
        time.sleep(0.1)
    raise AssertionError(f"{pixels_of(display, color)} pixels are {color}, not {count}")


@pytest.mark.slow
def test_the_newest_frame_is_shown_until_the_window_closes(display: Path) -> None:
    window = Window("test")
    for color in ((10, 20, 30), (200, 100, 50)):
        window(0.0, np.full((60, 80, 3), color, np.uint8))
        until(60 * 80, display, color)
    window.close()
    until(0, display, (200, 100, 50))
    window(0.0, np.zeros((60, 80, 3), np.uint8))  # is left out


@pytest.mark.slow
def test_closing_the_window_ends_the_program(display: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `timesformer live` has it
    window = Window("test")
    window._process.terminate()
    window._process.join()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            window(0.0, np.zeros((60, 80, 3), np.uint8))
            time.sleep(0.01)
    window.close()
    signal.signal(signal.SIGTERM, before)


def test_without_a_display_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UserError, match=r"no window can be shown here: .*Record instead: --record FILE\.mp4"):
        Window("test")
