"""Every picture is written, at a readable size, for few and many classes and for little or no data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from timesformer.visualization import curves
from timesformer.visualization.comparison import save_comparison
from timesformer.visualization.confusion import confusion_figure, save_class_bars, save_confusion
from timesformer.visualization.contact_sheets import clip_frames, label_name, save_contact_sheet
from timesformer.visualization.curves import save_curves
from timesformer.visualization.explanations import Map, Panel, movie, overlay, save_explanations
from timesformer.visualization.figures import BLUE, GREEN, VERMILION, save_figure
from timesformer.visualization.lines import save_lines
from timesformer.visualization.reliability import reliability_figure


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """A layout that does not fit, or an empty legend, shows as a warning of matplotlib."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(path: Path) -> np.ndarray:
    """The written PNG, checked for a sensible size and for something being on it."""
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    height, width = pixels.shape[:2]
    assert 150 <= height <= 2500 and 600 <= width <= 2500, (height, width)
    assert (pixels < 128).any(axis=2).mean() > 0.002
    return pixels


def history(steps: int, epochs: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    train = [
        {"kind": "train", "epoch": (i + 1) / 50, "loss": rng.normal(2, 0.1), "top1": 90 * i / steps, "lr": 1e-3}
        for i in range(steps)
    ]
    return train + [{"kind": "val", "epoch": e + 1, "loss": 1.5, "top1": 10.0 * e} for e in range(epochs)]


def confusion(num_classes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.diag(rng.integers(5, 30, num_classes)) + rng.binomial(1, 0.05, (num_classes, num_classes))


@pytest.mark.parametrize(("steps", "epochs"), [(200, 4), (200, 0), (1, 0), (0, 1), (0, 0)])
def test_curves(tmp_path: Path, steps: int, epochs: int) -> None:
    save_curves(history(steps, epochs), tmp_path / "new" / "folder" / "curves.png")
    picture(tmp_path / "new" / "folder" / "curves.png")


def test_curves_leave_out_what_was_not_measured(tmp_path: Path) -> None:
    rows = [
        {"kind": "train", "epoch": 0.5, "loss": float("nan"), "top1": None, "lr": 0.1},
        {"kind": "train", "epoch": 1.0, "loss": 2.0, "lr": 0.1},
        {"kind": "val", "epoch": 1, "loss": 1.0, "mAP": 40.0},
        {"kind": "test", "mAP": 50.0},
    ]
    save_curves(rows, tmp_path / "curves.png")
    picture(tmp_path / "curves.png")


@pytest.mark.parametrize(("num_classes", "named"), [(2, True), (12, False), (174, True)])
def test_confusion_and_class_bars(tmp_path: Path, num_classes: int, named: bool) -> None:
    matrix = confusion(num_classes)
    matrix[-1] = 0  # a class without clips
    names = [f"moving $something_{k} from the left to the right" for k in range(num_classes)] if named else []
    counts = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        accuracy = np.diag(matrix) / counts
    save_confusion(matrix, names, tmp_path / "a" / "confusion.png")
    save_class_bars(accuracy, counts, names, tmp_path / "b" / "bars.png")
    picture(tmp_path / "a" / "confusion.png")
    picture(tmp_path / "b" / "bars.png")


def test_pictures_of_no_clips_at_all(tmp_path: Path) -> None:
    save_confusion(np.zeros((3, 3), int), [], tmp_path / "confusion.png")
    save_class_bars(np.full(3, np.nan), np.zeros(3, int), [], tmp_path / "bars.png")
    picture(tmp_path / "confusion.png")
    picture(tmp_path / "bars.png")


def test_confusion_says_what_it_shows() -> None:
    figure = confusion_figure(np.array([[8, 2], [0, 5]]), ["up", "down"])
    axes, margin, _ = figure.axes
    assert figure.get_suptitle() == "Confusion matrix: top-1 86.7% (n = 15 clips, 2 classes)"
    assert confusion_figure(np.ones((1, 1), int), []).get_suptitle().endswith("(n = 1 clip, 1 class)")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up (10)", "down (5)"]
    assert [text.get_text() for text in axes.texts] == ["80", "20", "100"]
    assert margin.texts[0].get_text().splitlines()[2:] == ["20% (2 of 10)  up", "        → down"]


def test_contact_sheet_of_unlike_clips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(8, 32, 32), (20, 84, 96), (1, 160, 90)]
    rows = [(f"clips/{n}/$a_b.avi " * 9, rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for n, s in enumerate(shapes)]
    save_contact_sheet(rows, tmp_path / "new" / "sheet.png", "the worst 3 of 240 clips")
    picture(tmp_path / "new" / "sheet.png")


def test_contact_sheet_shows_frames_in_order_and_colour(tmp_path: Path) -> None:
    frames = np.zeros((3, 20, 20, 3), np.uint8)
    for t in range(3):
        frames[t, ..., t] = 255  # red, green, blue
    save_contact_sheet([("", frames)], tmp_path / "sheet.png", "")
    middle = picture(tmp_path / "sheet.png")[-100]
    shown = middle[[200, 620, 1100]].tolist()  # OpenCV reads BGR
    assert shown == [[0, 0, 255], [0, 255, 0], [255, 0, 0]]


def test_contact_sheet_without_clips_is_still_written(tmp_path: Path) -> None:
    save_contact_sheet([], tmp_path / "sheet.png", "nothing was wrong")
    assert (tmp_path / "sheet.png").exists()


def test_comparison(tmp_path: Path) -> None:
    rows = [
        {"name": "whole video", "mean": 88.3, "std": 3.8, "n": 3, "note": "", "values": [91.7, 89.2, 84.2]},
        {"name": "fixed rate 32", "mean": 79.5, "std": 1.8, "n": 2, "note": "as on Kinetics"},
        {"name": "one run", "mean": 60.0, "low": 55.0, "high": 66.0, "note": None},
        {"name": "random flip", "mean": 100.0, "std": None, "n": 1},
    ]
    save_comparison(rows, tmp_path / "new" / "comparison.png", "Accuracy on unseen people")
    picture(tmp_path / "new" / "comparison.png")


def test_lines_with_equal_values_are_all_visible(tmp_path: Path) -> None:
    lines = [{"name": name, "x": [8, 16, 32], "y": [1.0, 2.0, 4.0]} for name in ("first", "second", "third")]
    panel = {"title": "forward", "xlabel": "frames", "ylabel": "s", "axes": {"yscale": "log"}, "lines": lines}
    save_lines([panel], tmp_path / "new" / "lines.png", "What a clip costs")
    pixels = picture(tmp_path / "new" / "lines.png")
    panel_only = pixels[80:-60, 100 : int(0.7 * pixels.shape[1])]  # without the legend
    for color in (VERMILION, BLUE, GREEN):
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(panel_only[..., ::-1].astype(int) - rgb).max(axis=2) < 30).sum() > 100, color


def test_the_best_score_stands_at_its_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    save_curves(history(50, 4), tmp_path / "curves.png")
    _, axes, _ = figures[0].axes
    (label,) = axes.texts
    assert (label.get_text(), label.xy, label.get_position()) == ("30.0", (4.0, 30.0), (0, 5))
    assert axes.get_ylim() == (0, pytest.approx(1.1 * 90 * 49 / 50))


def test_rows_of_contact_sheets() -> None:
    clip = np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5)  # (C, T, H, W)
    assert clip_frames(clip).shape == (2, 4, 5, 3) and clip_frames(clip)[1, 2, 3, 0] == clip[0, 1, 2, 3]
    assert label_name(1, ["wave", "clap"]) == "clap" and label_name(1, []) == "label 1"
    assert label_name((1, 2), ["wave", "clap"]) == "clap, label 2" and label_name((0, 2), []) == "label 0, label 2"


def test_the_reliability_diagram_with_empty_bins(tmp_path: Path) -> None:
    counts = np.array([0, 2, 0, 8])
    values = np.array([np.nan, 0.4, np.nan, 0.9])
    figure = reliability_figure(counts, values, values - 0.1)
    save_figure(figure, tmp_path / "new" / "diagram.png")
    picture(tmp_path / "new" / "diagram.png")
    above, below = figure.axes
    assert [bar.get_height() for bar in above.patches] == pytest.approx([0.3, 0.8])
    assert [bar.get_height() for bar in below.patches] == counts.tolist()


def explained(frames: int, *, motion: bool = False, maps: int = 1) -> Panel:
    clip = np.random.default_rng(0).integers(0, 255, (frames, 32, 40, 3), dtype=np.uint8)
    cells = np.random.default_rng(1).random((frames, 4, 5))
    seen = 255 - clip if motion else clip
    return Panel("predicted a", clip, seen, [Map(f"map {n}", cells, cells.sum((1, 2))) for n in range(maps)])


@pytest.mark.parametrize("panels", [[explained(8)], [explained(40, motion=True)], [explained(1)]])
def test_an_explanation_is_drawn(panels: list[Panel], tmp_path: Path) -> None:
    save_explanations(panels, tmp_path / "e.png", "a clip")
    picture(tmp_path / "e.png")


def test_several_explanations_share_a_sheet(tmp_path: Path) -> None:
    save_explanations([explained(8, maps=2), explained(4, motion=True, maps=2)], tmp_path / "e.png", "clips")
    picture(tmp_path / "e.png")


def test_the_map_lies_where_its_cells_are() -> None:
    cells = np.zeros((1, 2, 2))
    cells[0, 0, 1] = 0.5
    out = overlay(np.full((1, 32, 64, 3), 100, np.uint8), cells, 0.5)[0].astype(int)
    assert out.shape == (32, 64, 3)
    assert np.ptp(out[28, 60]) <= 1 and abs(out[28, 60, 0] - 100) <= 1, "grey and unchanged where nothing counts"
    assert out[2, 60, 0] > 200 > out[2, 60, 2], "yellow where it is strongest"
    assert not overlay(np.zeros((1, 8, 8, 3), np.uint8), cells * 0, 0.0).any(), "an empty map"


def test_a_movie_shows_the_map_of_its_moment() -> None:
    panel = explained(4)
    cells = np.zeros((4, 4, 5))
    cells[1] = 1.0  # at time 20
    panel = panel._replace(maps=[Map("map", cells, cells.sum((1, 2)))])
    frames = np.full((31, 32, 40, 3), 100, np.uint8)
    pictures = [*movie(frames, np.arange(31), panel, np.array([30.0, 20.0, 10.0, 0.0]))]
    assert len({each.shape for each in pictures}) == 1 and pictures[0].dtype == np.uint8
    right = [each[100:200, 340:600].mean() for each in pictures]  # brightness of the overlay; its weak colours are dark
    assert int(np.argmax(right)) == 20 and right[20] > 190 and right[23] < right[20]
    assert right[0] == right[30] == pytest.approx(100, abs=1), "before and after there is only the frame"
