"""The command `timesformer`: selects one of its commands by name."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from timesformer import __version__

# What the command is for -> name -> function below timesformer.cli, which is imported when its command runs:
# (arguments) -> exit status.
GROUPS = {
    "Data": {
        "prepare": ("prepare.main", "make a list, splits and a configuration for a folder of clips"),
        "preview": ("preview.main", "draw the clips that the model gets"),
        "doctor": ("doctor.main", "find copies, leaks, bad files and label errors in a dataset"),
        "baseline": ("baseline.main", "score cheap baselines on the same lists, without a network"),
        "render": ("render.main", "render the generated gestures into a folder"),
    },
    "Train and test": {
        "config": ("config.main", "explain configuration keys, or show what a file resolves to"),
        "check": ("train.check", "check configuration and data, take one tiny step, stop"),
        "train": ("train.main", "train a model, then test it"),
        "test": ("train.test", "test trained weights, without training"),
        "submit": ("submit.main", "train and test as a Slurm job"),
        "jobs": ("jobs.main", "show the state of submitted jobs"),
        "benchmark": ("benchmark.main", "measure speed, memory and multiply-accumulates of a model"),
    },
    "Results": {
        "report": ("report.main", "write one HTML file about a run"),
        "compare": ("compare.main", "compare the results of tested runs"),
    },
    "Use a trained model": {
        "predict": ("predict.main", "predict the classes of videos"),
        "calibrate": ("calibrate.main", "calibrate scores on the validation list"),
        "live": ("live.main", "watch a camera, stream or file for gestures"),
        "explain": ("explain.main", "show which frames and which parts of them decided"),
        "export": ("export.main", "export it: ONNX, pt2, safetensors, Hugging Face"),
        "convert": ("convert.main", "convert weights to Hugging Face, .pyth or safetensors"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
USAGE = "usage: timesformer COMMAND [options]\n\nTrain and use video transformers.\n"
for _title, _group in GROUPS.items():
    USAGE += f"\n{_title}\n" + "".join(f"  {name:<10} {text}\n" for name, (_, text) in _group.items())
USAGE += "\ntimesformer COMMAND --help: options of a command; timesformer --version\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; returns its exit status, 2 without such a command."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if name in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if name == "--version":
        print(f"timesformer {__version__}")
        return 0
    if name not in COMMANDS:
        print(_unknown(name) if name else USAGE, file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name][0].partition(".")
    try:
        status: int = getattr(importlib.import_module(f"timesformer.cli.{module}"), function)(rest)
        sys.stdout.flush()
    except BrokenPipeError:  # `timesformer config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"error: {name!r} is not a command. {hint}`timesformer --help` lists all commands."
