"""What happens when a gesture is seen: a line of JSON, a program, a web address. Nothing of it holds up the stream."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from timesformer.inference.events import Event
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

log = get_logger(__name__)

WEBHOOK_SEC = 5.0  # for the server to answer
CLOSE_SEC = 10.0  # at the end of the stream, for what is under way
MAX_WAITING = 100  # events for a server that does not keep up; the oldest are dropped
MAX_PROGRAMS = 8  # that run at the same time
FIELDS = ("name", "label", "score", "start", "end", "decided")


def as_json(event: Event) -> str:
    """The event in one line."""
    content = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(event).items()}
    return json.dumps(content, ensure_ascii=False)


def program(command: str) -> Callable[[Event], None]:
    """Start `command` for each event, without a shell; {name}, {score}, ... in its words are those of the event.

    Raises:
        UserError: a command of no words, or with another field.
    """
    try:
        words = shlex.split(command)
        _fill(words, dict.fromkeys(FIELDS, ""))
    except (ValueError, KeyError, IndexError) as error:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise UserError(f"--exec {command!r}: {error}; the fields are {known}, {{{{ is a brace") from error
    if not words:
        raise UserError("--exec: an empty command")
    running: list[subprocess.Popen[bytes]] = []

    def start(event: Event) -> None:
        running[:] = [process for process in running if process.poll() is None]
        if len(running) >= MAX_PROGRAMS:
            log.warning("--exec: %d programs are still running; %s starts none", len(running), event.name)
            return
        try:
            running.append(subprocess.Popen(_fill(words, json.loads(as_json(event))), stdin=subprocess.DEVNULL))
        except OSError as error:
            log.warning("--exec: %s cannot be started: %s", words[0], error.strerror)

    return start


def _fill(words: list[str], fields: dict[str, Any]) -> list[str]:
    return [word.format_map(fields) for word in words]


class Webhook:
    """POSTs each event as JSON to an address, in a thread of its own."""

    def __init__(self, url: str) -> None:
        """Start the thread.

        Raises:
            UserError: not an http address.
        """
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--webhook {url}: give an address that begins with http:// or https://")
        self._url, self._waiting = url, queue.Queue[Event | None](MAX_WAITING)
        self._thread = threading.Thread(target=self._send, daemon=True, name="webhook")
        self._thread.start()

    def __call__(self, event: Event | None) -> None:
        """Send an event when those before it are sent; None: no more comes."""
        while True:
            try:
                return self._waiting.put_nowait(event)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    dropped = self._waiting.get_nowait()
                    log.warning("--webhook: %s was dropped, the server does not keep up", dropped and dropped.name)

    def close(self) -> None:
        """Wait for the events under way, at most `CLOSE_SEC`."""
        self(None)
        self._thread.join(CLOSE_SEC)
        if self._thread.is_alive():
            log.warning("--webhook: the server does not answer; the last events were not sent")

    def _send(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(self._url, as_json(event).encode(), headers)
                urllib.request.urlopen(request, timeout=WEBHOOK_SEC).close()
            except (OSError, ValueError) as error:
                log.warning("--webhook: %s was not sent: %s", event.name, error)
