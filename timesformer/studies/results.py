"""What a protocol's runs add up to: mean, spread, pooled score with its interval, and each class; as files and text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejson

from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import by_person, confusion, summarize
from timesformer.evaluation.report import read_predictions, write_predictions
from timesformer.evaluation.report_parts import describe_classes
from timesformer.studies.protocol import Protocol
from timesformer.studies.tables import latex, markdown
from timesformer.utils.console import count
from timesformer.utils.errors import UserError

Table = list[tuple[str, ...]]


def collect(protocol: Protocol) -> str:
    """Write results.json, .md, .tex and .png, per_class.png, confusion.png and predictions.csv; the text of the tables.

    Raises:
        UserError: a run was not tested yet, or its predictions are damaged.
    """
    per_run, records, predictions = [], [], []
    for run in protocol.runs:
        if (found := run.results()) is None:
            raise UserError(f"{run.folder}: not tested to the end. Run the protocol again")
        tested, scores = read_predictions(run.folder / "predictions.csv")
        people = len({record.subject for record in tested if record.subject})
        counts = {split: len(listed) for split, listed in run.splits.items()}
        per_run.append({"name": run.name, "folder": run.folder.name, "clips": counts, "people": people, **found})
        records += tested
        predictions.append(scores)
    pooled = Predictions(
        np.arange(len(records)),
        [record.label for record in records],
        np.concatenate([each.scores for each in predictions]),
        [],
        np.ones(len(records)),
        [],
    )
    clusters, unit = _clusters(protocol, records)
    values = [run["top1"] for run in per_run]
    metrics = summarize(pooled.scores, pooled.labels, multi_label=False, people=clusters)
    classes = describe_classes(pooled, protocol.class_names, clusters)["classes"]
    results = {
        "split": "test",
        "list": protocol.tested_list,
        "videos": sum(run["videos"] for run in per_run),
        "scored": len(records),
        **metrics,
        "mean": float(np.mean(values)),
        "std": spread(values),
        "interval_by": unit,
        "tested_checkpoint": protocol.cfg.TEST.CHECKPOINT,
        "per_class": {each["name"]: each["accuracy"] for each in classes},
        "protocol": {"kind": protocol.kind, "by": protocol.by, "runs": per_run},
    }
    folder = protocol.folder
    (folder / "results.json").write_text(simplejson.dumps(results, indent=2, ignore_nan=True) + "\n")
    write_predictions(folder / "predictions.csv", VideoList(records), pooled)
    tables = {"": _table_of_runs(per_run, results), "Each class": _table_of_classes(classes)}
    notes = _notes(protocol, results)
    (folder / "results.md").write_text(markdown(protocol.title, tables, notes), encoding="utf-8")
    (folder / "results.tex").write_text(latex(protocol.title, tables, notes), encoding="utf-8")
    _draw(protocol, per_run, results, pooled)
    return markdown(protocol.title, tables, notes)


def problems_of(folder: Path) -> list[str]:
    """What in results.json and predictions.csv of a protocol does not follow from the predictions of its runs.

    Raises:
        UserError, OSError, ValueError, LookupError: a file is missing or damaged.
    """
    results = json.loads((folder / "results.json").read_text())
    runs = results["protocol"]["runs"]
    tables = [read_predictions(folder / run["folder"] / "predictions.csv") for run in runs]
    records, pooled = read_predictions(folder / "predictions.csv")
    there = [record for listed, _ in tables for record in listed]
    rows = [[(r.path, r.label, r.subject) for r in listed] for listed in (records, there)]
    scores = np.concatenate([table.scores for _, table in tables])
    if rows[0] != rows[1] or not np.array_equal(pooled.scores, scores):
        return ["  predictions.csv is not that of the runs"]
    top1 = [summarize(table.scores, table.labels, multi_label=False)["top1"] for _, table in tables]
    found: dict[str, tuple[float | None, float | None]]
    found = {f"{run['name']} top1": (value, run["top1"]) for run, value in zip(runs, top1, strict=True)}
    metrics = summarize(pooled.scores, pooled.labels, multi_label=False)
    found |= {name: (value, results[name]) for name, value in metrics.items() if not name.startswith("top1_")}
    found |= {"mean": (float(np.mean(top1)), results["mean"]), "std": (spread(top1), results["std"])}
    return [
        f"  {name}: {written} in results.json, {value} from the predictions"
        for name, (value, written) in found.items()
        if value != written and not (value and written and np.isclose(value, written))
    ]


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _clusters(protocol: Protocol, records: Sequence[VideoRecord]) -> tuple[list[str], str]:
    """What the interval is clustered by for each prediction: persons, else the groups of the folds, else the clips."""
    if by_person(people := [record.subject for record in records]):
        return people, "subject"
    if protocol.by:
        group = {record.path: getattr(record, protocol.by) for record in protocol.records}
        return [group.get(record.path, "") for record in records], protocol.by
    return [f"{record.path} {record.start_sec}" for record in records], "clip"


def _table_of_runs(runs: Sequence[dict[str, Any]], results: dict[str, Any]) -> Table:
    ks = [name for name in results if name.startswith("top") and name[3:].isdigit()]
    shown = [*ks, "mean_class"]
    rows: Table = [("run", "train/val/test clips", "test persons", *(f"{name.replace('_', ' ')} %" for name in shown))]
    for run in runs:
        clips = "/".join(str(run["clips"].get(split, "")) for split in ("train", "val", "test")).strip("/")
        cells = (_percent(run.get(name)) for name in shown)
        rows.append((run["name"], clips, str(run["people"] or ""), *cells))
    spread = f" ± {results['std']:.1f}" if results["std"] is not None else ""
    rest = ("",) * (len(shown) - 1)
    rows.append(("mean ± std of the runs", "", "", f"{results['mean']:.1f}{spread}", *rest))
    interval = f"{results['top1']:.1f} [{results['top1_low']:.1f}, {results['top1_high']:.1f}]"
    cells = (_percent(results[name]) for name in shown[1:])
    rows.append(("all clips, 95% interval", str(results["scored"]), "", interval, *cells))
    return rows


def _table_of_classes(classes: Sequence[dict[str, Any]]) -> Table:
    rows: Table = [("class", "clips", "accuracy %", "95% interval", "most often confused with")]
    for each in classes:
        interval = f"{each['low']:.1f} to {each['high']:.1f}" if each["videos"] else ""
        cells = (str(each["videos"]), _percent(each["accuracy"]), interval, each["taken_for"])
        rows.append((each["name"], *cells))
    return rows


def _percent(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.1f}"


def _notes(protocol: Protocol, results: dict[str, Any]) -> list[str]:
    missing = results["videos"] - results["scored"]
    chosen = {
        "last": "The last checkpoint of each run is tested; nothing was chosen by test clips.",
        "best": "The checkpoint with the best validation score of each run is tested, not one chosen by test clips.",
    }[protocol.cfg.TEST.CHECKPOINT]
    if protocol.by:
        chosen += f" No {protocol.by} is in two of training, validation and test of a run."
    unit = results["interval_by"]
    return [
        f"{protocol.cfg.MODEL.MODEL_NAME}. {chosen}",
        f"The interval is that of all test predictions, clustered by {unit}: how the score varies with other {unit}s. "
        "The standard deviation is that of the runs; their training clips overlap, so no interval follows from it.",
        *([f"{count(missing, 'clip')} could not be read and are not scored."] if missing else []),
    ]


def _draw(protocol: Protocol, runs: Sequence[dict[str, Any]], results: dict[str, Any], pooled: Predictions) -> None:
    from timesformer.visualization.comparison import save_comparison
    from timesformer.visualization.confusion import save_class_bars, save_confusion
    from timesformer.visualization.figures import optional

    bars = [
        {"name": run["name"], "mean": run["top1"], "low": run["top1_low"], "high": run["top1_high"]} for run in runs
    ]
    values = [run["top1"] for run in runs]
    total = {"name": "all clips", "mean": results["top1"], "low": results["top1_low"], "high": results["top1_high"]}
    matrix, folder = confusion(pooled.scores, np.asarray(pooled.labels)), protocol.folder
    accuracy = np.array([np.nan if value is None else value for value in results["per_class"].values()], dtype=float)
    with optional(folder / "results.png"):
        save_comparison([*bars, {**total, "values": values}], folder / "results.png", protocol.title)
        save_confusion(matrix, protocol.class_names, folder / "confusion.png")
        save_class_bars(accuracy / 100, matrix.sum(axis=1), protocol.class_names, folder / "per_class.png")
