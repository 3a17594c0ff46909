"""Predict and explain in a web page of this machine: videos that are uploaded, or recorded with the webcam."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence

from timesformer.cli.parsers import command_parser, heavy_imports, run_command
from timesformer.utils.errors import UserError

EPILOG = """\
Only this machine reaches the page unless --host says otherwise. From elsewhere:
ssh -L 7860:localhost:7860 MACHINE, then http://localhost:7860 in the browser"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    parser = command_parser("serve", "Predict and explain videos in a web page.", epilog=EPILOG)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint, folder of a run, or hf:OWNER/NAME")
    parser.add_argument("--host", default=LOOPBACK[0], metavar="H", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="port to listen on (%(default)s)")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="classes shown (%(default)s)")
    parser.add_argument("--max-size", type=int, default=100, metavar="MB", help="largest upload (%(default)s)")
    parser.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps (%(default)s)")
    return run_command(parser, argv, serve)


def serve(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        UserError: CKPT, an option or the port cannot be used, or gradio is not installed.
    """
    for option, value, most in (
        *(("--port", arguments.port, 65535), ("--topk", arguments.topk, 1000)),
        *(("--max-size", arguments.max_size, 100_000),),
    ):
        if not 1 <= value <= most:
            raise UserError(f"{option} {value}: give 1 to {most}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are deleted
    with heavy_imports():
        from timesformer.inference import predictor, web
    from timesformer.utils.logging import get_logger, setup_logging

    setup_logging()
    log = get_logger(__name__)
    model = predictor.load(arguments.checkpoint, device=arguments.device)
    with web.served(
        model, host=arguments.host, port=arguments.port, topk=arguments.topk, max_mb=arguments.max_size
    ) as address:
        if arguments.host not in LOOPBACK:
            log.warning("%s: everybody who reaches this machine can use the page", arguments.host)
        log.info("%s; Ctrl-C ends", address)
        threading.Event().wait()
