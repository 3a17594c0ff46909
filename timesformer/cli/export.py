"""Export a trained model: one ONNX or pt2 file from frames to scores, or weights for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli import convert
from timesformer.cli.parsers import command_parser, heavy_imports, run_command
from timesformer.utils.errors import UserError

if TYPE_CHECKING:
    from timesformer.datasets.records import VideoRecord
    from timesformer.inference.predictor import Predictor
    from timesformer.runtime.runner import Runner

EPILOG = """\
timesformer export run best.onnx --to onnx
timesformer export run small.onnx --to onnx --int8 --clips clips/val.csv
Without torch: timesformer.runtime.load("best.onnx").predict("clip.mp4")"""
GRAPHS = ("onnx", "pt2")  # the others are what `timesformer convert` writes
NUM_COMPARED = 32  # clips


def main(argv: Sequence[str] | None = None) -> int:
    """Export; returns the exit status."""
    parser = command_parser(
        "export",
        "Export a trained model for other programs.",
        usage="%(prog)s CKPT OUT --to FORMAT [options]",
        epilog=EPILOG,
    )
    parser.add_argument("source", metavar="CKPT", help="checkpoint, folder of a run, or hf:OWNER/NAME")
    parser.add_argument("out", metavar="OUT", help="new file (with hf: folder)")
    parser.add_argument("--to", required=True, choices=(*GRAPHS, *convert.FORMATS), help="what to write")
    clips = "videos, folders or lists to compare the scores on (the run's validation list)"
    parser.add_argument("--clips", nargs="+", metavar="SOURCE", help=clips)
    parser.add_argument("--int8", action="store_true", help="onnx: 8-bit weights, with their cost in accuracy")
    parser.add_argument("--num-heads", type=int, metavar="N", help="attention heads, if CKPT does not state them")
    parser.add_argument("--no-ema", action="store_true", help="the trained weights, not their moving average")
    return run_command(parser, argv, export)


def export(arguments: argparse.Namespace) -> None:
    """Write OUT, and say how it compares with CKPT.

    Raises:
        UserError: options that do not fit, CKPT cannot be used, or the exported model gives other scores.
    """
    if arguments.int8 and arguments.to != "onnx":
        raise UserError("--int8 goes with --to onnx")
    with heavy_imports():
        from timesformer.inference import exporting, predictor, sources

    if arguments.to not in GRAPHS:
        arguments.source = predictor.checkpoint_of(arguments.source)
        convert.convert(arguments)
        return
    model = predictor.load(
        arguments.source, device="cpu", precision="fp32", num_heads=arguments.num_heads, ema=not arguments.no_ema
    )
    if arguments.clips:
        records, _ = sources.find_videos(arguments.clips, class_names=model.class_names, multi_label=model.multi_label)
    else:
        records = sources.validation_videos(model.settings)
    videos = records[:: max(1, len(records) // NUM_COMPARED)][:NUM_COMPARED] or exporting.made_up_clips(model)
    if not records:
        print("no validation list is here: compared on made-up clips. Name real ones: --clips")
    parity, runner, quantized = exporting.export(
        model, arguments.out, to=arguments.to, videos=videos, int8=arguments.int8
    )
    size, frames = Path(arguments.out).stat().st_size / 1e6, model.spec.sampled_frames
    shapes = f"uint8 frames (B, {frames}, H, W, 3) -> scores (B, {len(model.class_names)})"
    print(f"wrote {arguments.out}: {size:.2f} MB, {shapes}\n{parity}")
    if quantized is not None:
        print(f"int8: {quantization_cost(model, runner, quantized, records)}")


def quantization_cost(model: Predictor, runner: Runner, quantized: Runner, records: Sequence[VideoRecord]) -> str:
    """The scores of both on the labelled ones of `records`, in a line."""
    from timesformer.inference.exporting import score_labelled

    labelled = [record for record in records if record.label != -1]
    if not labelled:
        return "the cost in accuracy is unknown: no clips with labels. Name a list with labels: --clips"
    before, after = (score_labelled(each, labelled, multi_label=model.multi_label) for each in (runner, quantized))
    return f"{after[0]} {after[1]:.1f}%, without {before[1]:.1f}%, on {before[2]} clips"
