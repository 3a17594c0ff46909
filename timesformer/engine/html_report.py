"""One HTML file about a run, made from what the run's folder holds; it needs no network and no other file."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from timesformer import __version__
from timesformer.config.defaults import KEY_BY_NAME
from timesformer.datasets.records import VideoRecord
from timesformer.engine.baselines import read_baselines
from timesformer.engine.events import RunEvents
from timesformer.evaluation.audits import describe_images, describe_needs
from timesformer.evaluation.metrics import by_person
from timesformer.evaluation.report import distinct_names, read_predictions
from timesformer.evaluation.report_parts import describe_classes, describe_labels, playing_clips
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

FILE = "report.html"  # in OUTPUT_DIR
PICTURES = {
    "input_clips.png": "Training clips as the model gets them, one row of frames per clip",
    "worst_clips.png": "The worst of the wrong test clips as the model saw them, one row of frames per clip",
    "worst_clips_explained.png": "What decided in the worst test clips (timesformer explain RUN --worst RUN --out RUN)",
}
PNG = "image/png"


def leave_report(folder: Path, records: Sequence[VideoRecord]) -> None:
    """`write_html` after a test, which it never fails; `records` are the videos that were scored."""
    try:
        log.info("report            %s", write_html(folder, records=records))
    except Exception as error:  # the test is done
        log.warning("no report: %s: %s", type(error).__name__, error)


def write_html(folder: Path, out: Path | None = None, *, records: Sequence[VideoRecord] | None = None) -> Path:
    """Write the report of a run, tested or not.

    Args:
        folder: OUTPUT_DIR of the run.
        out: the file; None: `FILE` in `folder`.
        records: the scored videos, in the order of predictions.csv; None: the files that it names, if they are there.

    Returns:
        The file.

    Raises:
        UserError: the folder holds no run or a damaged file, or `out` cannot be written.
    """
    from timesformer.visualization.curves import curves_figure
    from timesformer.visualization.figures import png
    from timesformer.visualization.page import data_uri, render_page

    out = out or folder / FILE
    events = RunEvents(folder, tensorboard_dir=None, is_main=False)
    with _reading(events.path):
        history = events.history()
        if not history and events.path.is_file() and events.path.stat().st_size:
            raise ValueError("it has no row")
    results = _mapping(folder / "results.json")
    settings = {name: _flat(_mapping(folder / name)) for name in ("config.yaml", "test_config.yaml")}
    settings = {name: values for name, values in settings.items() if values}
    if not (history or results or settings):
        raise UserError(
            f"{folder} holds no run: no config.yaml, metrics.jsonl or results.json. Give a run's OUTPUT_DIR"
        )
    lists = {name: _mapping(folder / name) for name in ("dataset.json", "test_dataset.json")}
    known = {split: of for each in lists.values() for split, of in each.items() if split in ("train", "test")}
    test = _test(folder, results, records) if results.get("scored") else {}
    pictures = {text: folder / name for name, text in PICTURES.items() if (folder / name).is_file()}
    last = _last_values(history)
    cfg = next(iter(settings.values()), {})
    page = render_page(
        "report.html",
        title=f"{cfg.get('MODEL.MODEL_NAME', 'Run')}: {folder.resolve().name}",
        folder=folder.resolve(),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        contents=_contents(curves=bool(history), test=test, pictures=bool(pictures)),
        results=results,
        numbers=[*_numbers(results)],
        baselines=read_baselines(folder, known),
        warnings=_warnings(folder / "log.txt"),
        missing=_rows(folder / "missing_videos.csv"),
        curves=data_uri(PNG, png(curves_figure(history))) if history else "",
        last=last,
        test=test,
        pictures={text: data_uri(PNG, path.read_bytes()) for text, path in pictures.items()},
        settings=settings,
        changed={name: dict(_changed(values)) for name, values in settings.items()},
        lists=lists,
        versions={name: _flat(_mapping(folder / name)) for name in ("versions.json", "test_versions.json")},
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(page.encode(errors="replace"))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}. Name another file: --out FILE") from error
    return out


def _contents(*, curves: bool, test: Mapping[str, Any], pictures: bool) -> dict[str, str]:
    """Titles of the sections there are, by their anchors."""
    sections = {
        "summary": (True, "Summary"),
        "curves": (curves, "Learning curves"),
        "classes": (bool(test), "Each class"),
        "confusion": ("classes" in test, "Confusion"),
        "calibration": ("classes" in test, "Calibration"),
        "audits": ("audits" in test, "Audits"),
        "clips": ("classes" in test, "Clips"),
        "input": (pictures, "What the model is given"),
        "settings": (True, "Configuration"),
        "data": (True, "Data"),
        "environment": (True, "Environment"),
    }
    return {anchor: title for anchor, (there, title) in sections.items() if there}


def _numbers(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, value, remark) of the scores of a test."""
    for name, value in results.items():
        if value is not None and (name in ("mAP", "mean_class", "macro_f1") or re.fullmatch(r"top\d+", name)):
            low, high = (results.get(f"{name}_{end}") for end in ("low", "high"))
            remark = "" if low is None or high is None else f"95% interval {low:.1f} to {high:.1f}"
            yield name.replace("_", " ").replace("top", "top-"), f"{value:.1f}%", remark
    if results:
        yield "videos scored", f"{results['scored']} of {results['videos']}", f"{results['split']} list"


def _last_values(history: Sequence[Mapping[str, Any]]) -> str:
    """The last row of the training and of the validation in words."""
    parts = []
    for kind, name in (("train", "training"), ("val", "validation")):
        if rows := [row for row in history if row["kind"] == kind]:
            shown = {"loss": "loss {:.3f}", "top1": "top-1 {:.1f}%", "mAP": "mAP {:.1f}%"}
            values = [text.format(rows[-1][key]) for key, text in shown.items() if rows[-1].get(key) is not None]
            parts.append(f"{name} {', '.join(values)} (epoch {rows[-1]['epoch']:g})")
    return f"Last values: {'; '.join(parts)}." if parts else ""


def _test(folder: Path, results: Mapping[str, Any], records: Sequence[VideoRecord] | None) -> dict[str, Any]:
    """What the template shows of the test, its pictures drawn."""
    from timesformer.visualization.confusion import confusion_figure, most_confused
    from timesformer.visualization.figures import png
    from timesformer.visualization.page import data_uri
    from timesformer.visualization.reliability import reliability_figure

    multi_label = "mAP" in results
    read, predictions = read_predictions(folder / "predictions.csv", multi_label=multi_label)
    num_classes = predictions.scores.shape[1]
    file = folder / "class_names.txt"
    names = [*results.get("per_class", ())] or (file.read_text().splitlines() if file.is_file() else [])
    names = distinct_names(names if len(names) == num_classes else [str(label) for label in range(num_classes)])
    if multi_label:
        return {"labels": describe_labels(predictions, names)}
    people = [record.subject for record in read]
    content = describe_classes(predictions, names, people)
    matrix, calibration = content.pop("matrix"), content["reliability"]
    verdict, diagram = "", ""
    if calibration:
        confidence, accuracy = 100 * predictions.scores.max(axis=1).mean(), results["top1"]
        verdict = f"Mean confidence {confidence:.1f}%, accuracy {accuracy:.1f}%."
        bins = calibration.counts, calibration.confidence, calibration.accuracy
        diagram = data_uri(PNG, png(reliability_figure(*bins)))
    clips = playing_clips(predictions, records or read, names)
    for each in (each for group in clips.values() for each in group if "content" in each):
        each["uri"] = data_uri(each["media"], each.pop("content"))
    audits = results.get("audits")
    shown = {"needs": describe_needs(audits), "images": describe_images(audits)} if audits else {}
    return {
        **content,
        **({"audits": audits | shown} if audits else {}),
        "num_people": len({*people}) if by_person(people) else 0,
        "clips": clips,
        "playing": any(each.get("media", "").startswith("video/") for group in clips.values() for each in group),
        "confusion": data_uri(PNG, png(confusion_figure(matrix, names))),
        "pairs": [
            (names[true], names[guess], int(matrix[true, guess]), int(matrix[true].sum()))
            for true, guess in most_confused(matrix, 10)
        ],
        "diagram": diagram,
        "verdict": verdict,
    }


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Make what goes wrong with a file of the run a `UserError` that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, csv.Error, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"{path} is damaged: {cause}. Delete it, or train or test the run again") from error


def _mapping(path: Path) -> dict[str, Any]:
    """What a file of JSON or YAML holds; {} without the file."""
    if not path.is_file():
        return {}
    with _reading(path):
        return dict((json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text()))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to values."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _changed(settings: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The settings that are not at their default of this version, with the default."""
    for name, value in settings.items():
        default = KEY_BY_NAME[name].default if name in KEY_BY_NAME else "not a key of this version"
        if value != default:
            yield name, (value, default)


def _rows(path: Path) -> list[dict[str, str]]:
    """A csv table; [] without the file."""
    if not path.is_file():
        return []
    with _reading(path), path.open(newline="") as file:
        return [*csv.DictReader(file)]


def _warnings(path: Path) -> list[tuple[str, str]]:
    """(last time, text) of each different warning in the log; [] without the log."""
    entries: list[tuple[str, str, list[str]]] = []  # time, level, lines
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if start := re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ([A-Z]+) (.*)", line):
                    entries.append((start[1], start[2], [start[3]]))
                elif entries:
                    entries[-1][2].append(line.rstrip())
    texts = {"\n".join(lines): when for when, level, lines in entries if level in ("WARNING", "ERROR")}
    return [(when, text) for text, when in texts.items()]
