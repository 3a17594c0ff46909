"""What became of submitted jobs: state, last metric, log, and the cause of death of those that failed."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.console import columns
from timesformer.utils.errors import UserError
from timesformer.utils.files import json_lines

NOTES = "jobs.jsonl"
TAIL_BYTES = 100_000  # of a log, where its end is looked for
# What ends a job, as its log says it; of several the last one counts.
DEATHS = (
    r"^error: .+",
    r"^stopped: .+",
    r"^slurmstepd.*(?:CANCELLED|DUE TO|oom|Exceeded).*",
    r"^srun: error: .+",
    r".*Out Of Memory.*",
    r"^\w*(?:Error|Exception)\b.*",
    r"^not requeued: .+",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of the jobs of a folder; returns the exit status."""
    parser = command_parser("jobs", "Show state, last metric, log and cause of death of submitted jobs.")
    parser.add_argument("job_dir", type=Path, metavar="JOB_DIR", help="--job_dir of `timesformer submit`")
    return run_command(parser, argv, jobs)


def jobs(arguments: argparse.Namespace) -> None:
    """Print the table; `UserError` for a folder without jobs."""
    file = arguments.job_dir / NOTES
    if not file.is_file():
        raise UserError(f"{file}: no such file; JOB_DIR is the --job_dir of `timesformer submit`")
    notes = {note["job"]: note for note in json_lines(file)}  # the newest of a number
    rows = [("job", "state", "last metric", "output")]
    details = []
    for note in notes.values():
        state = state_of(note)
        rows.append((note["job"], state, last_metric(Path(note["output_dir"])), note["output_dir"]))
        details.append(f"{note['job']}  log    {note['log']}")
        if state not in ("RUNNING", "PENDING", "COMPLETED"):
            details.append(f"{note['job']}  cause  {cause_of_death(Path(note['log'])) or 'the log says nothing'}")
    print(columns(rows))
    print("\n" + "\n".join(details))


def note_job(job_dir: Path, **facts: str) -> None:
    """Add a job to the list of its folder."""
    with (job_dir / NOTES).open("a") as file:
        file.write(json.dumps(facts) + "\n")


def show_job(number: str) -> str:
    """What `scontrol` knows of a job, in one line; empty once it has forgotten it."""
    return _output("scontrol", "--oneliner", "show", "job", number)


def state_of(note: dict[str, Any]) -> str:
    """RUNNING, COMPLETED, FAILED and so on, as Slurm says it, or for a job of this machine its process."""
    if note["cluster"] == "slurm":
        known = re.search(r"\bJobState=(\w+)", show_job(note["job"]))
        if known:
            return known[1]
        past = _output("sacct", "--noheader", "--parsable2", "--jobs", note["job"], "--format", "State").split()
        return past[0] if past else _by_results(note)
    number = note["job"]
    alive = number.isdecimal() and psutil.pid_exists(int(number))
    if alive and any("submitit" in word for word in _command_line(int(number))):
        return "RUNNING"
    return _by_results(note)


def _by_results(note: dict[str, Any]) -> str:
    """Of a job that nobody knows any more: it has a test, or its log says that it ended well."""
    tested = any(row.get("kind") == "test" for row in json_lines(Path(note["output_dir"]) / "metrics.jsonl"))
    return "COMPLETED" if tested or "completed successfully" in _tail(Path(note["log"])) else "FAILED"


def _command_line(process: int) -> list[str]:
    try:
        return psutil.Process(process).cmdline()
    except psutil.Error:
        return []


def last_metric(folder: Path) -> str:
    """The last row of metrics.jsonl in a few words; a dash before the first."""
    rows = [row for row in json_lines(folder / "metrics.jsonl") if "kind" in row]
    if not rows:
        return "-"
    kinds = {row["kind"]: row for row in rows}
    row = kinds.get("test") or rows[-1]
    names = [name for name in ("top1", "mAP", "loss") if isinstance(row.get(name), (int, float))][:2]
    values = "  ".join(f"{name} {row[name]:.{1 if name != 'loss' else 3}f}" for name in names)
    return f"{row['kind']} at epoch {row.get('epoch', 0):g}: {values}"


def cause_of_death(log: Path) -> str:
    """The last line of the log that says why the job ended; empty without one."""
    found = re.findall("|".join(f"(?:{death})" for death in DEATHS), _tail(log), re.MULTILINE)
    return str(found[-1]).strip()[:300] if found else ""


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a command prints; empty when it fails, is not there or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
