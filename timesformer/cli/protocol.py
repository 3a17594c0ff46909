"""Train and test every fold of a protocol, or every seed, and write one table."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timesformer
from timesformer.cli.parsers import config_parser, run_command
from timesformer.utils.console import columns, count
from timesformer.utils.errors import RESTART_STATUS, ConfigError, Stopped, UserError

if TYPE_CHECKING:
    from timesformer.studies.protocol import FoldRun, Protocol

KINDS = ("kfold", "group_kfold", "loso", "cross_scene", "seeds")
LOG = "output.txt"
TAIL_LINES = 6  # of a failed run's log that the error shows


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is not done yet, then write the tables; returns the exit status."""
    parser = config_parser(
        "protocol",
        "Train and test every fold of all clips, or every seed; then write one table:\n"
        "mean, spread, interval by person, classes. To resume, repeat the command.",
        needs="--cfg FILE --kind KIND",
        cfg_required=True,
    )
    add = parser.add_argument
    add("--kind", choices=KINDS, required=True, metavar="KIND", help=", ".join(KINDS))
    add("--folds", type=int, metavar="N", help="of kfold and group_kfold (5)")
    add("--by", choices=("subject", "scene"), help="what group_kfold keeps together (subject)")
    add("--seeds", nargs="+", metavar="S", help="of --kind seeds (0 1 2)")
    add("--out", type=Path, metavar="DIR", help="folder of all runs and of the tables (OUTPUT_DIR)")
    add("--on", choices=("slurm", "local"), help="submit a job array instead of running here")
    add("--job", default="", metavar="OPTIONS", help="of `timesformer submit`: --job '--num_gpus 1'")
    add("--dry-run", action="store_true", help="show the folds, and stop")
    return run_command(parser, argv, protocol)


def protocol(arguments: argparse.Namespace) -> None:
    """Plan, run or submit what is not done, and write the tables once everything is.

    Raises:
        UserError: the dataset cannot be divided so, the folder holds another protocol, or a run failed.
    """
    from timesformer.studies.results import collect

    planned = plan(arguments)
    for warning in planned.warnings:
        print(f"WARNING: {warning}")
    print(f"{planned.title}: {count(len(planned.records), 'clip')}, output in {planned.folder}")
    if arguments.dry_run:
        print(f"\n{columns(show_folds(planned))}")
        return
    planned.prepare()
    todo = [run for run in planned.runs if run.results() is None]
    for run in planned.runs:
        if run not in todo:
            print(f"{run.name}: done, {scores(run)}")
    if todo and arguments.on:
        submit(planned, todo, arguments)
        print("once the jobs have ended, the same command writes the tables")
        return
    for number, run in enumerate(todo, start=1 + len(planned.runs) - len(todo)):
        label = f"{run.name} ({number} of {len(planned.runs)})"
        print(f"{label}: training, log in {run.folder / LOG}", flush=True)
        train(planned, run)
        print(f"{label}: {scores(run)}", flush=True)
    print(f"\n{collect(planned)}\nwritten to {planned.folder}: results.md, results.tex, results.json, results.png")


def plan(arguments: argparse.Namespace) -> Protocol:
    """The protocol that the command line asks for.

    Raises:
        UserError: options that do not belong to the kind, and see `plan_folds`.
    """
    from timesformer.engine.setup import load_run_config
    from timesformer.studies.protocol import plan_folds, plan_seeds
    from timesformer.utils.logging import setup_logging

    kind = arguments.kind
    owners = {"folds": ("kfold", "group_kfold"), "by": ("group_kfold",), "seeds": ("seeds",)}
    for option, kinds in owners.items():
        if getattr(arguments, option) is not None and kind not in kinds:
            raise ConfigError(f"--{option} is of --kind {' and '.join(kinds)}, not of {kind}")
    if (num_folds := arguments.folds or 5) < 2:
        raise ConfigError(f"--folds {num_folds}: at least 2")
    setup_logging()
    words = arguments.seeds or ["0", "1", "2"]
    seeds = [*itertools.takewhile(str.isdecimal, words)]  # the settings stand behind them
    out = ["OUTPUT_DIR", str(arguments.out)] if arguments.out else []
    cfg = load_run_config(arguments.cfg, [*arguments.overrides, *words[len(seeds) :], *out]).cfg
    folder = Path(cfg.OUTPUT_DIR).resolve()
    if kind == "seeds":
        return plan_seeds(cfg, seeds, folder)
    return plan_folds(cfg, kind, folder, by=arguments.by or "", num_folds=num_folds)


def show_folds(planned: Protocol) -> list[Sequence[str]]:
    """A row for each run: clips of each split, and the persons or scenes of validation and test."""
    rows: list[Sequence[str]] = [("run", "train", "val", "test", f"{planned.by or 'subject'}s of val", "of test")]
    for run in planned.runs:
        sizes = [str(len(run.splits.get(split, ()))) for split in ("train", "val", "test")]
        groups = []
        for split in ("val", "test"):
            names = sorted({getattr(record, planned.by or "subject") for record in run.splits.get(split, ())} - {""})
            groups.append(", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""))
        rows.append((run.name, *sizes, *groups))
    return rows


def scores(run: FoldRun) -> str:
    """The score of a run that is done."""
    results: dict[str, Any] = run.results() or {}
    return f"top1 {results['top1']:.1f}% of {count(results['scored'], 'test clip')}"


def train(planned: Protocol, run: FoldRun) -> None:
    """Train and test one run in a process of its own, which gets the signals that this one gets.

    Raises:
        UserError: it failed; the end of its log is shown.
        Stopped: a signal has ended it.
    """
    from timesformer.distributed.stop import handling_stop_signals

    run.folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(Path(timesformer.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "timesformer", "train", "--cfg", str(planned.folder / "config.yaml"), *run.words]
    with (run.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a terminal sends Ctrl-C to this process alone, which passes it on
        )
        signals: list[int] = []

        def pass_on(number: int, _: object) -> None:
            signals.append(number)
            process.send_signal(number)

        with handling_stop_signals(pass_on):
            status = process.wait()
    if signals and status:
        raise Stopped(signals[0], f"{run.name} is saved; the same command resumes it")
    if status or run.results() is None:
        lines = (run.folder / LOG).read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
        hint = "requested a restart" if status == RESTART_STATUS else f"ended with status {status}"
        shown = "\n".join(f"  {line}" for line in lines)
        raise UserError(f"{run.name} {hint}; the end of {run.folder / LOG}:\n{shown}\nThe same command resumes it")


def submit(planned: Protocol, todo: Sequence[FoldRun], arguments: argparse.Namespace) -> None:
    """Submit the runs as an array of jobs."""
    from timesformer.cli.submit import build_parser, submit_all

    settings = ["--cfg", str(planned.folder / "config.yaml"), "--job_dir", str(planned.folder)]
    settings += ["--cluster", arguments.on, "--name", planned.folder.name]
    options = build_parser().parse_args([*settings, *shlex.split(arguments.job)])
    submit_all(options, [run.words for run in todo])
