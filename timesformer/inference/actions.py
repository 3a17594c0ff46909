"""What happens when a gesture is seen: a line of JSON, a program, a web address. Nothing of it holds up the stream."""

from __future__ import annotations

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


def webhook(url: str) -> Callable[[Event], None]:
    """POST each event as JSON to `url`, in a thread of its own.

    Raises:
        UserError: not an http address.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--webhook {url}: give an address that begins with http:// or https://")
    waiting: queue.Queue[Event] = queue.Queue(MAX_WAITING)

    def send() -> None:
        while True:
            event = waiting.get()
            try:
                request = urllib.request.Request(url, as_json(event).encode(), {"Content-Type": "application/json"})
                urllib.request.urlopen(request, timeout=WEBHOOK_SEC).close()
            except (OSError, ValueError) as error:
                log.warning("--webhook: %s was not sent: %s", event.name, error)
            finally:
                waiting.task_done()

    def put(event: Event) -> None:
        while True:
            try:
                return waiting.put_nowait(event)
            except queue.Full:
                log.warning("--webhook: %s was dropped, the server does not keep up", waiting.get_nowait().name)
                waiting.task_done()

    threading.Thread(target=send, daemon=True, name="webhook").start()
    put.join = waiting.join  # type: ignore[attr-defined]
    return put
