"""What is no file is not opened: nobody may ever write into a pipe."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.config import load_config
from timesformer.datasets.list_files import Table
from timesformer.utils.errors import UserError
from timesformer.utils.files import not_a_file, write_whole
from timesformer.video.readers import open_frames, open_video
from timesformer.weights.files import read_file

OPENERS: dict[str, Callable[[str], object]] = {
    "video": open_video,
    "picture": lambda path: open_frames([path], fps=30.0),
    "list": Table,
    "weights": read_file,
    "configuration": load_config,
    "base": lambda path: load_config(_based_on(path)),
}


def _based_on(path: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
        file.write(f"_BASE_: {path}\n")
    return file.name


@pytest.mark.parametrize("opener", OPENERS)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, opener: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        names = {"pipe": "a named pipe", "folder": "a folder", "socket": "a socket"}
        for path, kind in [*((str(tmp_path / name), kind) for name, kind in names.items()), ("/dev/zero", "a device")]:
            with pytest.raises(UserError, match=f"{kind}, not a file"):
                OPENERS[opener](path)


def test_files_nothing_and_the_pipes_of_a_shell_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "gone", "/dev/stdin", "a\0b"):
        assert not_a_file(path) == ""


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"first")

    def full(path: Path, content: bytes) -> None:
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first" and [path.name for path in tmp_path.iterdir()] == ["a"]
