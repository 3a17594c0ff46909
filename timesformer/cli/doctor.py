"""Find what is wrong with a dataset: unreadable, copied and constant videos, leaks between lists, label errors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.errors import UserError

if TYPE_CHECKING:
    from timesformer.curation.doctor import Recipe
    from timesformer.curation.findings import Finding
    from timesformer.curation.label_errors import Scored
    from timesformer.datasets.records import VideoList
    from timesformer.visualization.contact_sheets import Row

MOST_ROWS, FRAMES_SHOWN, HEIGHT_SHOWN = 60, 8, 160  # of the sheet, of a row, pixels of a frame


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; returns the exit status, 1 when there are errors."""
    parser = command_parser(
        "doctor",
        "Find what is wrong with a dataset: videos that cannot be read, copies, people in\n"
        "two lists, small classes, clips that miss the action. Changes nothing.",
        usage="%(prog)s CFG|FOLDER|LIST [options] [KEY VALUE ...]",
        epilog="CFG: a configuration, whose recipe is examined too; KEY VALUE: its keys.\nExit status: 1 with errors, "
        "0 with warnings only.",
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--cfg", help=argparse.SUPPRESS)  # as other commands have it
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the videos of the findings")
    parser.add_argument(
        "--scores", type=Path, nargs="+", default=[], action="extend", metavar="CSV",
        help="predictions.csv of runs that did not train on the\nclips in it: finds likely label errors",
    )  # fmt: skip
    return run_command(parser, argv, doctor)


def doctor(arguments: argparse.Namespace) -> None:
    """Examine the lists and print the table and what to paste.

    Raises:
        UserError: there are errors, or the lists cannot be read.
    """
    from timesformer.curation.doctor import examine
    from timesformer.curation.findings import ERROR, correction, summary, table

    target, *overrides = [arguments.cfg] * bool(arguments.cfg) + arguments.words or [""]
    if not target:
        raise UserError("name what to examine, a configuration, folder or list: timesformer doctor CFG|FOLDER|LIST")
    lists, recipe, backend = load(target, overrides)
    print(", ".join(f"{split}: {len(videos.records)} videos" for split, videos in lists.items()))
    bar = sys.stderr.isatty()
    predictions = [read_scores(path) for path in arguments.scores]
    findings = examine(lists, recipe=recipe, predictions=predictions, backend=backend, show_progress=bar)
    if findings:
        print(f"\n{table(findings)}")
    if block := correction(findings):
        print(f"\nTo paste, after a look at each:\n\n{block}")
    if arguments.json:
        write_json(arguments.json, lists, findings)
        print(f"\nwritten to {arguments.json}")
    if arguments.sheet and (rows := [*sheet_rows(findings, lists, backend)]):
        from timesformer.visualization.contact_sheets import save_contact_sheet

        save_contact_sheet(rows, arguments.sheet, f"{target}: {summary(findings)}")
        print(f"\nwritten to {arguments.sheet}")
    if any(finding.severity == ERROR for finding in findings):
        raise UserError(f"{summary(findings)}. Mend the errors before you train")
    print(f"\n{summary(findings)}")


def load(target: str, overrides: Sequence[str]) -> tuple[dict[str, VideoList], Recipe | None, str]:
    """The lists of a configuration, its recipe and its decoder; of a folder or list no recipe.

    Raises:
        UserError: neither can be read, or keys without a configuration.
    """
    from timesformer.curation.doctor import Recipe
    from timesformer.curation.targets import lists_of_folder

    if target.endswith((".yaml", ".yml")) or not Path(target).exists():
        from timesformer.datasets.build import load_lists
        from timesformer.engine.setup import load_run_config
        from timesformer.video.readers import resolve_backend

        cfg = load_run_config(target, overrides).cfg
        lists = load_lists(cfg)
        if cfg.TEST.DATASET == cfg.TRAIN.DATASET and cfg.TEST.SPLIT in lists and cfg.TEST.SPLIT != "test":
            lists.pop("test", None)  # the same list
        return lists, Recipe.from_config(cfg), resolve_backend(cfg.DATA.DECODING_BACKEND)
    if overrides:
        raise UserError(f"keys such as {overrides[0]} need a configuration: timesformer doctor CFG {overrides[0]} ...")
    return lists_of_folder(target), None, "pyav"


def read_scores(path: Path) -> Scored:
    """The clips and scores of a predictions.csv.

    Raises:
        UserError: it is missing or damaged.
    """
    from timesformer.curation.label_errors import Scored
    from timesformer.evaluation.report import read_predictions

    records, predictions = read_predictions(path)
    return Scored(str(path), records, predictions.scores)


def write_json(path: Path, lists: Mapping[str, VideoList], findings: Sequence[Finding]) -> None:
    """Write the numbers of videos and every finding."""
    from timesformer.curation.list_checks import class_names

    names, sizes = class_names(lists), {split: len(videos.records) for split, videos in lists.items()}
    content = {"videos": sizes, "findings": [finding.to_dict(names) for finding in findings]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sheet_rows(findings: Sequence[Finding], lists: Mapping[str, VideoList], backend: str) -> Iterator[Row]:
    """A captioned row for each of the first videos of the findings that can be read."""
    import numpy as np

    from timesformer.curation.list_checks import class_names
    from timesformer.curation.small_videos import evenly_spread
    from timesformer.datasets.opening import open_record, sample_record
    from timesformer.utils.errors import VideoReadError
    from timesformer.video.thumbnails import shrunk
    from timesformer.visualization.contact_sheets import label_name

    names, number = class_names(lists), 0
    for finding in findings:
        for each in finding.videos[:3]:
            try:
                with open_record(each.record, backend=backend) as reader:
                    indices = sample_record(
                        each.record, reader.info, evenly_spread(FRAMES_SHOWN), np.random.default_rng(0)
                    )
                    frames = reader.read(indices[0])
            except VideoReadError:
                continue
            number += 1
            yield (
                f"{finding.check}: {finding.what}\n{each} | {label_name(each.record.label, names)}",
                shrunk(frames, HEIGHT_SHOWN),
            )
            if number == MOST_ROWS:
                return
