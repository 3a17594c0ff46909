"""Log lines: plain ones on the console, the same lines with their times in OUTPUT_DIR/log.txt."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from timesformer.utils.console import fit
from timesformer.utils.errors import UserError

ROOT = "timesformer"


class _ConsoleHandler(logging.Handler):
    """Writes to what `sys.stdout` is when the message comes, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        tqdm.write(fit(self.format(record), sys.stdout), file=sys.stdout)


class _FileHandler(logging.FileHandler):
    """Writes log.txt; when that fails, says so once and leaves the lines to the console."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Called while the exception is handled."""
        if not self.failed:
            self.failed = True
            print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        """Close the file; what could not be written before is lost, as was said then."""
        with contextlib.suppress(OSError):
            super().close()


class _PlainFormatter(logging.Formatter):
    """The message; warnings and errors start with their level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname}: {text}"


def get_logger(name: str = ROOT) -> logging.Logger:
    """The project's logger of that name; `get_logger(__name__)` serves in tools and scripts too."""
    return logging.getLogger(name if name == ROOT or name.startswith(f"{ROOT}.") else f"{ROOT}.{name}")


def setup_logging(output_dir: str | Path | None = None, is_main: bool = True) -> None:
    """Send the project's messages to the console and to the end of `output_dir`/log.txt.

    Args:
        output_dir: folder of the run, made when missing; None writes no file.
        is_main: False in all processes but the first; they print errors only and write no file.

    Raises:
        UserError: the folder cannot be written.
    """
    root = logging.getLogger(ROOT)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG)  # debug lines go to the file only
    root.propagate = False

    console = _ConsoleHandler()
    console.setLevel(logging.INFO if is_main else logging.ERROR)
    console.setFormatter(_PlainFormatter())
    root.addHandler(console)
    if is_main and output_dir is not None:
        try:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            file = _FileHandler(Path(output_dir) / "log.txt", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            message = f"cannot write into OUTPUT_DIR {output_dir}: {error.strerror}. Set another OUTPUT_DIR"
            raise UserError(message) from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(file)
