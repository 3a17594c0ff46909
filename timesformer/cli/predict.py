"""Predict the classes of videos with a checkpoint: a line a video, csv, json, videos with the label, timelines."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from timesformer.cli.parsers import command_parser, heavy_imports, run_command
from timesformer.utils.console import count
from timesformer.utils.errors import UserError

DESCRIPTION = "Predict the classes of videos with trained weights."
EPILOG = "Labels in lists or folders give the accuracy. Exit status 1: some are unreadable"


def main(argv: Sequence[str] | None = None) -> int:
    """Predict; returns the exit status."""
    parser = command_parser("predict", DESCRIPTION, usage="%(prog)s CKPT SOURCE... [options]", epilog=EPILOG)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint, folder of a run, or hf:OWNER/NAME")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help='files, folders, "clips/*.mp4", lists, folders of pictures',
    )
    parser.add_argument("--topk", type=_count, default=3, metavar="K", help="classes per video (%(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="table: path, prediction, score, a column per class")
    parser.add_argument("--json", type=Path, metavar="FILE", help="list with the top classes of each video")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="the videos with their label burnt in, as mp4")
    parser.add_argument("--window", type=_seconds, metavar="SEC", help="predict windows of long videos, such as 2s")
    parser.add_argument("--stride", type=_seconds, metavar="SEC", help="from window to window (half of --window)")
    timeline = "csv and png of each video with --window (%(default)s)"
    parser.add_argument("--timeline", type=Path, default=Path("timeline"), metavar="DIR", help=timeline)
    parser.add_argument("--views", type=_views, metavar="CxK", help="C clips (or auto) x K crops (as the run's test)")
    parser.add_argument("--names", metavar="FILE", help="class names, if CKPT has none: one a line, or json")
    parser.add_argument("--batch", type=_count, default=8, metavar="N", help="clips of a forward pass (%(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode (1; with a GPU up to 8)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    return run_command(parser, argv, predict)


def predict(arguments: argparse.Namespace) -> None:
    """Predict every video that can be read.

    Raises:
        UserError: nothing to predict, a file that cannot be written, or, at the end, videos that could not be read.
    """
    with heavy_imports():
        from timesformer.inference import batch_files, predictor, sources
    from timesformer.utils.logging import setup_logging

    setup_logging()
    model = predictor.load(arguments.checkpoint, device=arguments.device)
    if arguments.views:
        model.views = predictor.replace(model.views, num_clips=arguments.views[0], num_crops=arguments.views[1])
    named = model.class_names != [str(label) for label in range(len(model.class_names))]
    if arguments.names:
        from timesformer.datasets.records import load_class_names

        model.class_names, named = load_class_names(arguments.names, len(model.class_names)), True
    videos, warnings = sources.find_videos(
        arguments.sources, class_names=model.class_names, multi_label=model.multi_label
    )
    if not named:
        warnings.append(f"{arguments.checkpoint} stores no class names: classes are numbers. Name them: --names FILE")
    for warning in warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    started = time.perf_counter()
    result = batch_files.predict_files(
        model,
        videos,
        batch_files.Output(
            topk=arguments.topk, csv=arguments.csv, json=arguments.json, overlay=arguments.overlay,
            timeline=arguments.timeline if arguments.window else None,
        ),
        window_sec=arguments.window,
        stride_sec=arguments.stride or (arguments.window or 0) / 2,
        batch_size=arguments.batch,
        num_workers=arguments.workers,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    print(f"{count(result.num_clips, 'clip')} in {seconds:.1f} s: {result.num_clips / seconds:.1f} clips/s, "
          f"{100 * result.waited_sec / seconds:.0f}% of the time waiting for decoding")  # fmt: skip
    if result.score:
        print(f"{result.num_labelled} of them have labels: {result.score}")
    for path in [arguments.csv, arguments.json, arguments.overlay, arguments.window and arguments.timeline]:
        if path:
            print(path)
    if result.failures:
        lines = "\n".join(f"  {failure.path}: {failure.cause}" for failure in result.failures)
        raise UserError(f"{len(result.failures)} of {len(videos)} videos could not be read:\n{lines}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text[:-2]) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))
        if 0.01 <= seconds < float("inf"):
            return seconds
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 2s, 0.5s or 500ms")


def _views(text: str) -> tuple[int | str, int]:
    clips, _, crops = text.partition("x")
    if (clips == "auto" or (clips.isdecimal() and int(clips))) and crops in ("", "1", "3"):
        return (clips if clips == "auto" else int(clips)), int(crops or 1)
    raise argparse.ArgumentTypeError(f"{text!r} are no views; write CLIPSxCROPS, such as 10x3 or autox1; crops 1 or 3")
