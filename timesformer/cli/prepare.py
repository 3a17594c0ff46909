"""Prepare own clips: recognise a folder, list it, split it, and write a configuration that trains on it."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.console import columns, count, fit

if TYPE_CHECKING:
    from timesformer.curation.listing import Listing
    from timesformer.curation.recipe import Machine

TIMED_STEPS = 5  # by which the time of a training is estimated
DESCRIPTION = """\
Make DIR/videos.csv (label, person, scene and split of each clip), classes.txt
and config.yaml, from which `timesformer train` trains with no further key.
FOLDER is not changed. Again: adds new clips; what you edited in DIR stays."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, and print what was found; returns the exit status."""
    parser = command_parser("prepare", DESCRIPTION, usage="%(prog)s FOLDER --out DIR [options]")
    parser.add_argument("source", metavar="FOLDER", help="folders of clips in any order, or a list of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--label", default="", metavar="REGEX", help="finds the class in a path; its first group")
    parser.add_argument("--subject", metavar="REGEX", help="finds the person (guessed; '' for none)")
    parser.add_argument("--scene", metavar="REGEX", help="finds the scene (guessed; '' for none)")
    parser.add_argument("--short-side", type=int, metavar="PIXELS", help="train on copies of this size, such as 256")
    fractions = "share of val and test, where FOLDER has no splits (0.15 0.2)"
    parser.add_argument("--fractions", type=float, nargs=2, default=(0.15, 0.2), metavar=("V", "T"), help=fractions)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the splits (%(default)s)")
    return run_command(parser, argv, prepare)


def prepare(arguments: argparse.Namespace) -> None:
    """Write the manifest, the class names and the configuration; `UserError` where FOLDER or DIR do not fit."""
    from timesformer.curation.listing import list_clips
    from timesformer.datasets.files import natural_key
    from timesformer.utils.errors import UserError

    val, test = arguments.fractions
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise UserError(f"--fractions {val:g} {test:g}: both are shares, val above 0, that leave a rest for train")
    if arguments.short_side is not None and not 16 <= arguments.short_side <= 4320:
        raise UserError(f"--short-side {arguments.short_side}: allowed are 16 to 4320 pixels")
    out = os.path.abspath(arguments.out)
    options = {name: getattr(arguments, name) for name in ("label", "subject", "scene", "seed", "short_side")}
    show = sys.stderr.isatty()
    listing = list_clips(arguments.source, out, fractions=(val, test), show_progress=show, **options)
    names = sorted({row.label for row in listing.rows if row.split}, key=natural_key)
    Path(out, "classes.txt").write_text(
        "".join(f"{name}\n" for name in names), encoding="utf-8", errors="surrogateescape"
    )
    print(fit("\n".join([summary(listing), *warnings_of(listing)]), sys.stdout))
    write_config(listing, out)


def summary(listing: Listing) -> str:
    """What was found, as a table."""
    rows = listing.rows
    used = [row for row in rows if row.split]
    classes, splits = Counter(row.label for row in used), Counter(row.split for row in used)
    sizes = Counter(row.size for row in rows if row.size)
    of_each = f"of {min(classes.values())} to {count(max(classes.values()), 'video')}" if classes else "in use"
    parts = ", ".join(f"{split} {splits[split]}" for split in ("train", "val", "test") if splits[split])
    cells = [
        ("found", ""),
        ("layout", listing.found.layout),
        ("classes", f"{len(classes)} {of_each}: {_some(sorted(classes))}"),
        ("subjects", _groups("subject", {row.subject for row in used}, listing.origins)),
        ("scenes", _groups("scene", {row.scene for row in used}, listing.origins)),
        ("splits", f"{parts}; {listing.origins['split']}"),
        ("videos", f"{len(rows)}, {listing.num_new} new, {len(rows) - len(used)} without a split"),
        ("seconds", _spread([row.duration for row in rows if row.duration])),
        ("frames/s", _spread([row.fps for row in rows if row.fps])),
        ("size", _some([f"{size} ({number})" for size, number in sizes.most_common()], 4)),
        ("unreadable", str(len(listing.unreadable))),
    ]
    return columns(cells)


def _groups(role: str, values: set[str], origins: Mapping[str, str]) -> str:
    known = sorted(values - {""})
    return f"{len(known)}: {_some(known, 4)}; {origins.get(role)}" if known else f"not known; --{role} REGEX finds them"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}, median {statistics.median(values):.1f}" if values else "not known"


def warnings_of(listing: Listing) -> list[str]:
    """What the user should look at, a line each."""
    from timesformer.curation.splitting import shared_groups
    from timesformer.datasets.records import shorten

    lines = [f"unreadable: {line}" for line in shorten([f"{p}: {why}" for p, why in listing.unreadable.items()], 10)]
    lines += listing.found.notes
    splits = [row.split for row in listing.rows]
    for role in ("subject", "scene"):
        shared = shared_groups([getattr(row, role) for row in listing.rows], splits)
        if shared and (role == listing.grouped_by or "source" in listing.origins["split"]):
            first, where = next(iter(shared.items()))
            lines.append(
                f"warning: {count(len(shared), role)} in several splits, such as {first} ({', '.join(where)}): the "
                "score is then not that of new ones. Edit the column split of videos.csv"
            )
    of_class: dict[str, set[str]] = {}
    for row in listing.rows:
        of_class.setdefault(row.label, set()).update({row.split} - {""})
    if "val" not in splits:
        advice = "a class needs at least 3 videos for one. Write val into the column split of some in videos.csv"
        lines.append(f"warning: no video is in val, and a training needs that list: {advice}")
    expected = {*splits} - {""}
    lacking = [
        f"{name} (no {', '.join(sorted(expected - has))})" for name, has in of_class.items() if has and expected - has
    ]
    if lacking:
        lines.append(f"warning: {count(len(lacking), 'class')} not in every split: {', '.join(shorten(lacking, 5))}")
    return lines


def write_config(listing: Listing, out: str) -> None:
    """Write config.yaml unless it is there, and print what comes next with the time it takes."""
    from timesformer.curation.recipe import choose_base, make_settings, render

    rows = [row for row in listing.rows if row.split]
    path = Path(out, "config.yaml")
    print(f"\n{out}/videos.csv: edit labels, people, scenes and splits there; they are kept when you prepare again")
    if path.exists():
        print(f"{path} is kept as it is; for a new one, delete it and prepare again")
    else:
        machine = this_machine()
        base, why = choose_base(machine, sum(row.split == "train" for row in rows))
        path.write_text(render(base, why, make_settings(base, rows, machine, out), rows), encoding="utf-8")
        print(f"{path}: {base} ({why})")
    print(estimate(str(path)))
    print(f"\nnext: timesformer train --cfg {shlex.quote(str(path))}")


def this_machine() -> Machine:
    """What this machine has; weights are looked up on the hub only where a GPU can use them."""
    import shutil

    import torch

    from timesformer.config.load import load_config
    from timesformer.curation.recipe import IMAGES, K400, LARGE_GPU_GB, Machine
    from timesformer.utils.env import free_memory
    from timesformer.weights.sources import can_be_had

    gpu_gb = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else 0.0
    free = [shutil.disk_usage("/dev/shm").free] if os.path.isdir("/dev/shm") else [0]
    free += [memory] if (memory := free_memory()) else []
    weights = load_config(K400).cfg.TRAIN.CHECKPOINT_FILE_PATH
    k400 = os.path.abspath(weights) if os.path.isfile(weights) else ""
    images = gpu_gb >= LARGE_GPU_GB and not k400 and can_be_had(load_config(IMAGES).cfg.MODEL.WEIGHTS)
    return Machine(gpu_gb, k400, images, min(free) / 1e9)


def estimate(path: str) -> str:
    """How long a training takes, by a few steps; or why that is not known."""
    from timesformer.engine.check import measure_training
    from timesformer.engine.setup import load_run_config
    from timesformer.utils.errors import UserError

    try:
        loaded = load_run_config(path)
        took, num_clips = measure_training(loaded, repeats=TIMED_STEPS)
    except UserError as error:
        return f"warning: this configuration does not train yet: {error}"
    epoch, whole = (timedelta(seconds=round(sec) or 1) for sec in (took.epoch_sec, took.training_sec))
    how = f"the fastest of {TIMED_STEPS} steps of {count(num_clips, 'clip')}, reading included, validation not"
    return (
        f"time on this machine, as busy as it is now: about {epoch} an epoch, {whole} for "
        f"{loaded.cfg.SOLVER.MAX_EPOCH} epochs ({how})"
    )


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])
