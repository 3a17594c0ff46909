"""What all pictures share: colours that colour-blind readers can distinguish, labels, and writing a file."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timesformer.utils.console import printable
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

# Okabe and Ito, "Color Universal Design" (2008)
BLUE, SKY, GREEN, VERMILION, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7"
GREY = "#777777"
COLORS = (VERMILION, BLUE, GREEN, SKY, PURPLE, GREY)  # in the order in which lines get them


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG, making its folder; no global state of matplotlib is touched."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(png(figure))


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


@contextlib.contextmanager
def optional(path: str | Path) -> Iterator[None]:
    """Draw the picture `path` if it can be written; a full disk is a warning, for the run's results do not need it."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror or error)


def plain(text: str, width: int = 40) -> str:
    """`text` for a label: no formulas between dollar signs, and the middle left out when it is too long."""
    text = printable(text)
    if len(text) > width:
        half = (width - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text.replace("$", r"\$")


def name_classes(class_names: list[str], num_classes: int, width: int = 30) -> list[str]:
    """One label per class; a class without a name is called by its number."""
    names = [plain(name, width) for name in class_names[:num_classes]]
    return names + [str(label) for label in range(len(names), num_classes)]


def headline(figure: Figure, title: str, width: int = 90) -> None:
    """Put a title over the whole figure, left-aligned, broken into lines of `width` characters."""
    lines = "\n".join(textwrap.wrap(plain(title, 4 * width), width))
    figure.suptitle(lines, x=0.01, ha="left", fontweight="bold", fontsize=12)


def tidy(axes: Axes, grid: str = "both") -> None:
    """Light grid behind the data and no frame above and to the right."""
    axes.grid(True, axis=grid, alpha=0.25, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
