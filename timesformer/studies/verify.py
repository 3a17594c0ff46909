"""Whether a run is what its files say: lists, labels, metrics, weights and steps are computed again and compared."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from timesformer.datasets.build import load_lists
from timesformer.datasets.records import VideoList, fingerprint, path_tail
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.setup import load_run_config
from timesformer.engine.state import decisive_score
from timesformer.evaluation.metrics import confusion, per_class_accuracy, summarize
from timesformer.evaluation.report import distinct_names, read_predictions
from timesformer.studies.differences import (
    DIFFERS,
    FAILED,
    OK,
    SKIPPED,
    Outcome,
    compare_predictions,
    compare_weights,
    other_machine,
)
from timesformer.studies.protocol import SETTINGS
from timesformer.studies.recompute import retest, retrain
from timesformer.studies.results import problems_of
from timesformer.utils.console import count
from timesformer.utils.env import collect_versions
from timesformer.utils.errors import UserError
from timesformer.utils.files import json_lines
from timesformer.utils.paths import AS_NAMED

_TIMES = ("clips_per_sec", "data_wait")  # of a row of metrics.jsonl, which nobody can compute again
_INTERVAL = ("top1_low", "top1_high")  # which another version may compute otherwise


class Check(NamedTuple):
    """One thing that was compared."""

    what: str
    result: str  # of studies/differences.py
    detail: str

    @property
    def holds(self) -> bool:
        """Whether nothing was found that should not be."""
        return self.result not in (DIFFERS, FAILED)


@dataclass
class RunFolder:
    """A run's folder, and what the checks find in it."""

    folder: Path
    words: list[str]  # keys and values on top of its settings
    tested_by: str = ""  # "test_" where `timesformer test` was the last to test, else ""
    lists: dict[str, dict[str, VideoList]] = field(default_factory=dict)  # by prefix, by split
    lists_hold: bool = False

    def json(self, name: str) -> Any:
        """The content of one of its files."""
        return json.loads((self.folder / name).read_text())

    def config(self, prefix: str) -> Path:
        """The file of its settings."""
        return self.folder / f"{prefix}config.yaml"

    def cfg(self, prefix: str) -> Any:
        """Its settings, with those of the command line."""
        return load_run_config(str(self.config(prefix)), self.words).cfg

    @property
    def tested_checkpoint(self) -> Path:
        """The file that was tested.

        Raises:
            UserError: it is gone.
        """
        test = self.cfg(self.tested_by).TEST
        path = test.CHECKPOINT_FILE_PATH or checkpoints.tested_checkpoint(self.folder, test.CHECKPOINT)
        if path is None:
            raise UserError(f"the {test.CHECKPOINT} checkpoint, which was tested, is not there")
        return Path(path)


def verify(folder: Path, words: Sequence[str] = (), *, num_stretches: int = 1) -> Iterator[Check]:
    """Compare what a run left behind with what follows from its checkpoints and lists, the cheapest first.

    Args:
        folder: OUTPUT_DIR of the run, or of a protocol, of which each run is verified.
        words: keys and values on top of its settings, such as where the clips are now.
        num_stretches: pairs of neighbouring checkpoints, the newest first, between which training is repeated; one more
            than there are repeats it from the start.

    Raises:
        UserError: the folder holds no run.
    """
    if (folder / SETTINGS).is_file():
        yield _checked("protocol", check_protocol, RunFolder(folder, []))
        for run_folder in sorted(path.parent for path in folder.glob("*/config.yaml")):
            for what, *rest in verify(run_folder, words, num_stretches=num_stretches):
                yield Check(f"{run_folder.name} {what}", *rest)
        return
    prefixes = [prefix for prefix in ("", "test_") if (folder / f"{prefix}config.yaml").is_file()]
    if not prefixes:
        raise UserError(f"{folder}: no run there (no config.yaml). Give the OUTPUT_DIR of a training or test")
    run = RunFolder(folder, [*words])
    run.tested_by = max(prefixes, key=lambda prefix: run.config(prefix).stat().st_mtime)
    trained, tested = "" in prefixes, (folder / "results.json").is_file()
    checks: list[tuple[str, Callable[[RunFolder], Outcome], str]] = [
        ("settings", check_settings, "" if trained else "the run was not trained here"),
        ("lists", check_lists, ""),
        ("labels", check_labels, "" if tested else "the run was not tested"),
        ("metrics", check_metrics, "" if tested else "the run was not tested"),
        ("history", check_history, ""),
        ("best", check_best, "" if checkpoints.best_path(folder).is_file() else "there is no best checkpoint"),
        ("test", check_test, "" if tested else "the run was not tested"),
    ]
    for what, check, reason in checks:
        yield Check(what, SKIPPED, reason) if reason else _checked(what, check, run)
    kept = checkpoints.list_checkpoints(folder)
    pairs = [*zip([*kept[1:], None], kept, strict=False)][:num_stretches]
    if len(kept) == num_stretches == 1:  # the whole training, which was not requested
        pairs = []
    if not pairs:
        hint = "; --stretches 2 trains from the start" if kept else ""
        kept_two = f"{count(len(kept), 'checkpoint')} kept, it takes two{hint}"
        yield Check("stretch", SKIPPED, kept_two if num_stretches else "--stretches 0")
    for start, end in pairs:
        yield _checked("stretch", partial(check_stretch, start=start, end=end), run)


def _checked(what: str, check: Callable[[RunFolder], Outcome], run: RunFolder) -> Check:
    try:
        return Check(what, *check(run))
    except (UserError, OSError, ValueError, LookupError, TypeError) as error:
        return Check(what, FAILED, f"{error}" or type(error).__name__)


def check_protocol(run: RunFolder) -> Outcome:
    """The table of a protocol, held against the predictions of its runs."""
    fine = "results.json and predictions.csv follow from the predictions of the runs"
    return _outcome(problems_of(run.folder), fine, "does not fit:")


def check_settings(run: RunFolder) -> Outcome:
    """config.yaml, held against the settings in the newest checkpoint."""
    if (newest := checkpoints.newest_checkpoint(run.folder)) is None:
        return SKIPPED, "no checkpoint is kept"
    lines = checkpoints.differences(checkpoints.read_checkpoint(newest), run.cfg(""), {})
    there, here = _revisions(run, "")
    of = f"; the run is of timesformer {there}, this is {here}" if there != here else ""
    return _outcome(lines, f"config.yaml is that of {newest.name}{of}", f"config.yaml is not that of {newest.name}:")


def check_lists(run: RunFolder) -> Outcome:
    """The lists as they are now, held against their fingerprints in the run's files."""
    newest = checkpoints.newest_checkpoint(run.folder)
    problems, names = [], []
    for prefix in dict.fromkeys(("", run.tested_by)):
        if not run.config(prefix).is_file():
            continue
        recorded = {f"{prefix}dataset.json": run.json(f"{prefix}dataset.json")}
        if prefix == "" and newest:
            recorded[newest.name] = checkpoints.read_checkpoint(newest)["dataset"]
        if prefix == run.tested_by and (run.folder / "results.json").is_file():
            recorded["results.json"] = {"test": run.json("results.json")["list"]}
        run.lists[prefix] = load_lists(run.cfg(prefix))
        for split, videos in run.lists[prefix].items():
            names.append(f"{split} {len(videos.records)}")
            now = fingerprint(videos.records)
            problems += [
                f"  the {split} list: {checkpoints.short(there[split])} in {file}, {checkpoints.short(now)} now"
                for file, there in recorded.items()
                if split in there and there[split] != now
            ]
    run.lists_hold = not problems
    return _outcome(problems, f"as they were: {', '.join(dict.fromkeys(names))} videos", "not those of the run:")


def check_labels(run: RunFolder) -> Outcome:
    """Labels and predicted classes of predictions.csv, held against the test list and the scores."""
    if run.tested_by not in run.lists:
        return SKIPPED, "the test list cannot be read"
    cfg, videos = run.cfg(run.tested_by), run.lists[run.tested_by]["test"]
    records, predictions = read_predictions(run.folder / "predictions.csv", multi_label=cfg.DATA.MULTI_LABEL)
    with (run.folder / "predictions.csv").open(newline="", **AS_NAMED) as file:
        named = [int(row["prediction"]) for row in csv.DictReader(file)]
    listed = {(path_tail(r.path), r.start_sec, r.end_sec): r for r in videos.records}
    problems = []
    for line, (record, scores, prediction) in enumerate(zip(records, predictions.scores, named, strict=True), start=2):
        where = f"  predictions.csv:{line}: {record.path}"
        if (known := listed.get((path_tail(record.path), record.start_sec, record.end_sec))) is None:
            problems.append(f"{where} is not in the test list")
        elif (known.label, known.subject) != (record.label, record.subject):
            there = " ".join(map(str, (record.label, record.subject)))
            problems.append(f"{where}: label {there}, in the test list {known.label} {known.subject}".rstrip())
        if scores[prediction] < scores.max():
            problems.append(f"{where}: prediction {prediction}, but the highest score is that of {scores.argmax()}")
    expected = run.json("results.json")["scored"]
    if len(records) != expected:
        problems.append(f"  {len(records)} rows, but results.json says {expected}")
    return _outcome(
        problems, f"{count(len(records), 'row')} of predictions.csv are as in the test list", "does not fit:"
    )


def check_metrics(run: RunFolder) -> Outcome:
    """results.json, held against what follows from predictions.csv."""
    cfg, results = run.cfg(run.tested_by), run.json("results.json")
    multi_label = cfg.DATA.MULTI_LABEL
    records, predictions = read_predictions(run.folder / "predictions.csv", multi_label=multi_label)
    scores, labels = predictions.scores, predictions.labels
    people = [record.subject for record in records]
    found: dict[str, Any] = {**summarize(scores, labels, multi_label=multi_label, people=people)}
    detail = f"results.json follows from predictions.csv: {', '.join(found)}"
    if not multi_label:
        videos = run.lists.get(run.tested_by, {}).get("test", VideoList([]))
        names = distinct_names(videos.class_names or [str(label) for label in range(scores.shape[1])])
        accuracies = per_class_accuracy(confusion(scores, np.asarray(labels))).tolist()
        found |= {f"per_class {name}": value for name, value in zip(names, accuracies, strict=True)}
        written = {f"per_class {name}": value for name, value in results["per_class"].items()}
        results, found = {**results, **written}, {**dict.fromkeys(written), **found}
    if _is_of_another_version(run, run.tested_by):
        may_differ = [name for name in found if name in _INTERVAL or name not in results]
        if left_out := [name for name in may_differ if not _same(found[name], results.get(name))]:
            detail += f"; not {', '.join(left_out)}: the run is of another version of timesformer"
            found = {name: value for name, value in found.items() if name not in left_out}
    problems = [
        f"  {name}: {results.get(name)} in results.json, {value} from predictions.csv"
        for name, value in found.items()
        if not _same(value, results.get(name))
    ]
    return _outcome(problems, detail, "does not fit:")


def check_history(run: RunFolder) -> Outcome:
    """metrics.jsonl: its test row as results.json, its validations as the checkpoints have them."""
    rows, problems, compared = json_lines(run.folder / "metrics.jsonl"), [], 0
    tests = [row for row in rows if row.get("kind") == "test"]
    if tests and (run.folder / "results.json").is_file():
        results, compared = run.json("results.json"), 1
        problems += _row_differences(tests[-1], {**tests[-1], **{k: results.get(k) for k in tests[-1] if k in results}})
    setting = run.cfg("").TRAIN.BEST_METRIC if run.config("").is_file() else "auto"
    for path in checkpoints.list_checkpoints(run.folder):
        content = checkpoints.read_checkpoint(path)
        position, metrics = checkpoints.position_of(content), content.get("metrics")
        row = next((r for r in rows if r.get("kind") == "val" and r["epoch"] == position.epoch), None)
        if metrics and position.step == 0:
            compared += 1
            problems += _row_differences(row or {}, {**(row or {}), **metrics}, f"val of epoch {position.epoch}")
        earlier = [r for r in rows if r.get("kind") == "val" and r["epoch"] <= position.epoch]
        scores = [decisive_score(r, setting) for r in earlier]
        best = max((score for score in scores if not math.isnan(score)), default=content["best_score"])
        if not _same(best, content["best_score"]):
            problems.append(f"  best validation: {best} in metrics.jsonl, {content['best_score']} in {path.name}")
    return _outcome(
        problems, f"{count(compared, 'row')} of metrics.jsonl are as in results.json and checkpoints", "does not fit:"
    )


def check_best(run: RunFolder) -> Outcome:
    """The best checkpoint, held against the one of the same position, of which it is a copy."""
    best = checkpoints.read_checkpoint(checkpoints.best_path(run.folder))
    twin = checkpoints.checkpoint_path(run.folder, checkpoints.position_of(best))
    if not twin.is_file():
        return SKIPPED, f"{twin.name}, of which it is a copy, is not kept"
    if twin.samefile(checkpoints.best_path(run.folder)):
        return OK, f"it is {twin.name}"
    return compare_weights(best, checkpoints.read_checkpoint(twin), None, [], where=twin.name)


def check_test(run: RunFolder) -> Outcome:
    """predictions.csv, held against the predictions of the tested checkpoint now."""
    if not run.lists_hold:
        return SKIPPED, "the lists are not those of the run"
    path, now = run.tested_checkpoint, run.folder / "predictions.csv"
    newest = checkpoints.newest_checkpoint(run.folder) if run.tested_by == "" else None
    words = [*run.words, *(["PRECISION", checkpoints.read_checkpoint(newest)["precision"]] if newest else [])]
    reasons = other_machine(run.json(f"{run.tested_by}versions.json"))
    outcome: Outcome = retest(
        run.config(run.tested_by),
        words,
        path,
        lambda folder: compare_predictions(now, folder / "predictions.csv", reasons),
    )
    return outcome[0], f"{path.name}: {outcome[1]}"


def check_stretch(run: RunFolder, start: Path | None, end: Path) -> Outcome:
    """A checkpoint, held against what training makes now of the one before it."""
    if not run.lists_hold:
        return SKIPPED, "the lists are not those of the run"
    there = checkpoints.read_checkpoint(end)
    before = checkpoints.read_checkpoint(start) if start else None
    position, versions = checkpoints.position_of(there), there.get("versions", {})
    reasons = other_machine(versions, there)
    words = [*run.words, "PRECISION", there.get("precision", "auto")]
    now = retrain(run.config(""), words, start, position, threads=there.get("num_threads", 0))
    result, detail = compare_weights(there, now.content, before, reasons, where="training now")
    rows = {_row_key(row): row for row in json_lines(run.folder / "metrics.jsonl")}
    compared = [row for row in now.rows if row.get("kind") in ("train", "val")]
    problems, may_lack = [], _is_of_another_version(run, "")
    for row in compared:
        written = rows.get(_row_key(row), {})
        if written and may_lack:
            row = {name: value for name, value in row.items() if name in written}
        problems += _row_differences(written, row)
    title = f"{start.name if start else 'the start'} to {end.name}: {detail}"
    if result != OK or not problems:
        return result, title + (f", {count(len(compared), 'row')} of metrics.jsonl" if result == OK else "")
    return DIFFERS, "\n".join([f"{title}, but of metrics.jsonl:", *problems])


def _row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("kind"), row.get("epoch"), row.get("step")


def _row_differences(there: Mapping[str, Any], now: Mapping[str, Any], title: str = "") -> list[str]:
    title = title or f"{now.get('kind')} at step {now.get('step')}"
    return [
        f"  {title}: {name} {there.get(name, 'missing')} in metrics.jsonl, should be {value}"
        for name, value in now.items()
        if name not in _TIMES and not _same(there.get(name), value)
    ]


def _same(a: Any, b: Any) -> bool:
    """Equal up to the last digits that a file shows; NaN is written as null."""
    if not all(isinstance(value, (int, float, type(None))) for value in (a, b)):
        return bool(a == b)
    first, second = (math.nan if value is None else float(value) for value in (a, b))
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-6) or (math.isnan(first) and math.isnan(second))


def _outcome(problems: Sequence[str], fine: str, wrong: str) -> Outcome:
    return (DIFFERS, "\n".join([wrong, *problems])) if problems else (OK, fine)


def _is_of_another_version(run: RunFolder, prefix: str) -> bool:
    """Whether the run is of other code than this, which may have measured less."""
    there, here = _revisions(run, prefix)
    return there != here


def _revisions(run: RunFolder, prefix: str) -> list[str]:
    """The version and revision of the run's code and of this one."""
    both = (run.json(f"{prefix}versions.json"), collect_versions())
    return [f"{each.get('timesformer')} {((each.get('git') or {}).get('revision') or '')[:7]}".strip() for each in both]
