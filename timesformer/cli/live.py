"""Watch a camera, a network stream or a file for gestures: one event each."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.errors import UserError

if TYPE_CHECKING:
    from timesformer.evaluation.calibration import Calibration
    from timesformer.inference.events import Event
    from timesformer.inference.screen import Screen
    from timesformer.video.capture import Source

DESCRIPTION = "Watch a stream for gestures: one JSON line per gesture."
EXAMPLES = """\
timesformer live output/my_run --source 0
timesformer live best.pyth --source rtsp://camera/1 --exec 'notify-send {name}'"""
THRESHOLD = 0.6  # of weights that are not calibrated
UNSAFE_THRESHOLD = 0.9  # of weights that are wrong even where they are surest
DURATIONS_SEC = (1.5, 2.0, 3.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Print events as JSON lines until the source ends or Ctrl-C; returns the exit status."""
    parser = command_parser("live", DESCRIPTION, usage="%(prog)s CKPT --source S [options]", epilog=EXAMPLES)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint, or the folder of a run")
    parser.add_argument("--source", required=True, help="number of a camera, file, or address (rtsp://...)")
    parser.add_argument("--threshold", type=float, metavar="P", help="score of an event, 0 to 1 (calibrated)")
    parser.add_argument("--window", type=float, nargs="+", metavar="SEC", help="lengths of a gesture")
    parser.add_argument("--stride", type=float, default=0.1, metavar="SEC", help="between two looks (%(default)s)")
    parser.add_argument("--realtime", action="store_true", help="read a file in its own time, as a camera")
    parser.add_argument("--exec", metavar="'CMD {name}'", help="program to start for each event; no shell")
    parser.add_argument("--webhook", metavar="URL", help="address that gets each event as JSON")
    parser.add_argument("--record", type=Path, metavar="FILE.mp4", help="write the stream with the answers burnt in")
    parser.add_argument("--show", action="store_true", help="show it in a window; closing it ends")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (%(default)s)")
    return run_command(parser, argv, live)


def live(arguments: argparse.Namespace) -> None:
    """Watch the source; `UserError` for a checkpoint, source or option that cannot be used."""
    from timesformer.inference.actions import Webhook, as_json, program
    from timesformer.inference.events import EventDetector
    from timesformer.inference.live import Watcher
    from timesformer.inference.predictor import load
    from timesformer.utils.logging import get_logger, setup_logging
    from timesformer.video.capture import Source

    check_numbers(arguments)
    actions: list[Callable[[Event], None]] = [program(arguments.exec)] if arguments.exec else []
    webhook = Webhook(arguments.webhook) if arguments.webhook else None
    actions += [webhook] if webhook else []
    setup_logging()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the recording is completed
    log = get_logger(__name__)
    predictor = load(arguments.checkpoint, device=arguments.device)
    if predictor.multi_label:
        raise UserError(f"{arguments.checkpoint} gives several labels per video; live needs a model of one class each")
    known = predictor.calibration
    threshold, warning = threshold_for(arguments.threshold, known, arguments.checkpoint)
    if warning:
        log.warning("%s", warning)
    watcher = Watcher(
        predictor,
        EventDetector(predictor.class_names, threshold),
        durations_sec=arguments.window or (known and known.durations_sec) or DURATIONS_SEC,
        temperature=known.temperature if known else 1.0,
        stride_sec=arguments.stride,
    )
    source = Source(arguments.source)
    windows = ", ".join(f"{duration:.2f}" for duration in watcher.durations_sec)
    log.info("watching %s: windows of %s s, threshold %.2f; Ctrl-C ends", source.name, windows, threshold)
    try:
        with shown(source, predictor.class_names, arguments) as screen:
            for event in watcher.watch(source, paced=arguments.realtime, seen=screen.moment if screen else None):
                print(as_json(event), flush=True)
                for action in [*actions, *([screen.event] if screen else [])]:
                    action(event)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        if webhook:
            webhook.close()
        log.info("%s", watcher.statistics)


@contextlib.contextmanager
def shown(source: Source, class_names: Sequence[str], arguments: argparse.Namespace) -> Iterator[Screen | None]:
    """The screen for --show and --record; None without them.

    Raises:
        UserError: there is no display, or the file cannot be written.
    """
    from timesformer.inference.screen import Screen
    from timesformer.video.recorder import Recorder
    from timesformer.video.window import Window

    with contextlib.ExitStack() as closing:
        outputs: list[Recorder | Window] = []
        if arguments.show:
            outputs.append(Window(f"timesformer live {source.name}"))
            closing.callback(outputs[-1].close)
        if arguments.record:
            waits = not (source.is_live or arguments.realtime)
            outputs.append(Recorder(arguments.record, source.fps, waits=waits))
            closing.callback(outputs[-1].close)
        screen = Screen(class_names, outputs)
        source.seen = screen.frame if outputs else None
        yield screen if outputs else None


def threshold_for(wanted: float | None, known: Calibration | None, checkpoint: str) -> tuple[float, str]:
    """The score of an event, and what the user should hear of it; "" for nothing."""
    if known is None:
        threshold = wanted or THRESHOLD
        return (
            threshold,
            f"{checkpoint} is not calibrated: threshold {threshold:g}. Once: timesformer calibrate {checkpoint}",
        )
    if wanted or known.threshold < 1:
        return wanted or known.threshold, ""
    return (
        UNSAFE_THRESHOLD,
        f"no score was safe in the calibration: threshold {UNSAFE_THRESHOLD:g}, expect false events",
    )


def check_numbers(arguments: argparse.Namespace) -> None:
    """Refuse thresholds and seconds out of their range.

    Raises:
        UserError: naming the option.
    """
    if arguments.threshold is not None and not 0 < arguments.threshold <= 1:
        raise UserError(f"--threshold {arguments.threshold:g}: give a score above 0, up to 1")
    for option, values in (("--window", arguments.window or []), ("--stride", [arguments.stride])):
        if any(not 0 < value <= 600 for value in values):
            raise UserError(f"{option} {' '.join(f'{value:g}' for value in values)}: give seconds above 0, up to 600")
