"""Show which frames and which parts of them decided a prediction."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.utils.paths import AS_NAMED

if TYPE_CHECKING:
    from timesformer.datasets.records import VideoRecord
    from timesformer.inference.predictor import Predictor

DESCRIPTION = "Show which frames and which parts of them decided a prediction."
WORST_PICTURE = "worst_clips_explained.png"  # which the report of a run shows, where it lies in the run's folder
NUM_WORST = 8  # clips of `--worst`


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures and movies and print a line for each video; returns the exit status."""
    parser = command_parser("explain", DESCRIPTION, usage="%(prog)s CKPT SOURCE... [options]")
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint, folder of a run, or hf:OWNER/NAME")
    parser.add_argument(
        "sources", nargs="*", metavar="SOURCE", help='files, folders, "clips/*.mp4", lists, folders of pictures'
    )
    methods = "occlusion (default; any model), rollout, gradient (one pass; transformers of this project)"
    parser.add_argument("--method", default="occlusion", metavar="M", help=methods)
    parser.add_argument("--class", dest="class_name", default="", metavar="NAME", help="default: the predicted class")
    worst = f"the worst {NUM_WORST} clips of the test of RUN: one picture, prediction and true class of each"
    parser.add_argument("--worst", type=Path, metavar="RUN", help=worst)
    parser.add_argument("--out", type=Path, default=Path("explained"), metavar="DIR", help="folder (%(default)s)")
    parser.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="clips of a pass in occlusion (%(default)s)")
    return run_command(parser, argv, explain_all)


def explain_all(arguments: argparse.Namespace) -> None:
    """Explain every video that can be read.

    Raises:
        UserError: nothing to explain, options that do not fit the model, or no video could be read.
    """
    if bool(arguments.sources) == bool(arguments.worst):
        raise UserError("give videos to explain, or --worst RUN, and not both")
    if arguments.worst and arguments.class_name:
        raise UserError("--worst explains the prediction and the true class of each clip: leave --class out")
    if arguments.batch < 1:
        raise UserError(f"--batch {arguments.batch}: give 1 or more")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {arguments.out} cannot be a folder: {error.strerror}") from error
    rows = worst_rows(arguments.worst) if arguments.worst else []  # before the model is loaded

    from timesformer.inference.predictor import load
    from timesformer.inference.sources import file_names, find_videos

    predictor = load(arguments.checkpoint, device=arguments.device)
    if arguments.worst:
        explain_worst(predictor, rows, arguments)
        return
    videos, warnings = find_videos(
        arguments.sources, class_names=predictor.class_names, multi_label=predictor.multi_label
    )
    for warning in warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    unread = 0
    for video, name in zip(videos, file_names(videos), strict=True):
        try:
            explain_video(predictor, video, arguments.out / name, arguments)
        except VideoReadError as error:
            unread += 1
            print(f"could not be read: {error}", file=sys.stderr)
    if unread == len(videos):
        raise UserError(f"none of the {unread} videos could be read" if unread > 1 else "the video could not be read")


def explain_video(predictor: Predictor, video: VideoRecord, out: Path, arguments: argparse.Namespace) -> None:
    """Write `out`.png and `out`.mp4 and print what decided."""
    from timesformer.inference.explain import deciding, describe, explain, panel_of, playback
    from timesformer.video.encode import encode
    from timesformer.visualization.explanations import movie, save_explanations

    how = {"method": arguments.method, "class_name": arguments.class_name, "batch_size": arguments.batch}
    explanation = explain(predictor, video, **how)
    panel = panel_of({"map": explanation}, describe(explanation))
    still = out.with_name(f"{out.name}.png")
    save_explanations([panel], still, f"{Path(video.path).name}, {explanation.method}")
    frames, times, fps = playback(predictor, video, explanation)
    media_type, content = encode([*movie(frames, times, panel, explanation.positions)], fps)
    moving = out.with_name(f"{out.name}.{media_type.rpartition('/')[2]}")
    moving.write_bytes(content)
    print(
        f"{video.path}: {describe(explanation)}; {deciding(explanation.time)}; {moving.with_suffix('.png')}, {moving}"
    )


def explain_worst(predictor: Predictor, rows: Sequence[dict[str, str]], arguments: argparse.Namespace) -> None:
    """Write the picture of the worst clips: what spoke for the prediction and what for the true class."""
    from timesformer.inference.explain import explain, panel_of
    from timesformer.visualization.explanations import save_explanations

    panels = []
    how = {"method": arguments.method, "batch_size": arguments.batch}
    columns = {"predicted": "prediction"} | ({} if arguments.method == "rollout" else {"true": "label"})
    for row in rows:
        try:
            found = {
                name: explain(predictor, row["path"], class_name=row[column], **how) for name, column in columns.items()
            }
        except VideoReadError as error:
            print(f"could not be read: {error}", file=sys.stderr)
            continue
        scores = ", ".join(f"{name} {each.class_name} ({each.score:.2f})" for name, each in found.items())
        panels.append(panel_of(found, f"{Path(row['path']).name}: {scores}"))
    if not panels:
        raise UserError("none of the worst clips could be read")
    path = arguments.out / WORST_PICTURE
    save_explanations(panels, path, f"Worst clips of {arguments.worst}, {arguments.method}")
    print(path)


def worst_rows(run: Path) -> list[dict[str, str]]:
    """The first rows of the table that the test of a run wrote.

    Raises:
        UserError: there is no such table, or no clip was wrong.
    """
    table = run / "worst_clips.csv"
    if not table.is_file():
        raise UserError(f"{table} does not exist. --worst takes the OUTPUT_DIR of a run that was tested")
    with table.open(newline="", **AS_NAMED) as file:
        rows = [*csv.DictReader(file)]
    if not rows:
        raise UserError(f"{table} lists no clip: the test had none wrong")
    return rows[:NUM_WORST]
