"""Shows frames in a window, by Tk of the standard library, in a process of its own."""

from __future__ import annotations

import _thread
import multiprocessing
import signal
import threading
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from timesformer.utils.errors import UserError

MAX_WIDTH = 1280  # pixels; of wider frames every second, third, ... is shown
EVERY_MS = 15  # between two looks for a new frame


class Window:
    """A window that shows the newest frame. Closing it is SIGTERM for the program, if it handles that."""

    def __init__(self, title: str) -> None:
        """Open it.

        Raises:
            UserError: there is no display, or Python has no Tk.
        """
        context = multiprocessing.get_context("spawn")  # where the window has a main thread, as macOS demands
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_show, args=(theirs, title), daemon=True)
        self._process.start()
        theirs.close()
        try:
            problem = self._pipe.recv()
        except EOFError:
            problem = "its process has ended"
        self._is_open = not problem
        if problem:
            self._process.join()
            raise UserError(f"no window can be shown here: {problem}. Record instead: --record FILE.mp4")

    def __call__(self, at: float, frame: np.ndarray) -> None:
        """Show a frame, uint8 RGB (H, W, 3)."""
        if not self._is_open:
            return
        step = -(-frame.shape[1] // MAX_WIDTH)
        height, width = (frame := frame[::step, ::step]).shape[:2]
        try:
            self._pipe.send_bytes(b"P6 %d %d 255\n" % (width, height) + frame.tobytes())
        except OSError:
            self._is_open = False
            _thread.interrupt_main(signal.SIGTERM)  # jobs in the background ignore SIGINT

    def close(self) -> None:
        """Close the window."""
        self._is_open = False
        self._pipe.close()
        self._process.join()


def _show(pipe: Connection, title: str) -> None:
    """Show what comes through the pipe, each message a PPM file, until its end; first answer what is wrong, or ""."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program closes the window
    try:
        import tkinter

        root = tkinter.Tk()
    except Exception as error:  # without Tk, or a display: TclError
        pipe.send(str(error))
        return
    pipe.send("")
    root.title(title)
    label: Any = tkinter.Label(root)
    label.pack()
    newest: deque[bytes | None] = deque(maxlen=1)

    def read() -> None:
        try:
            while True:
                newest.append(pipe.recv_bytes())
        except (EOFError, OSError):
            newest.append(None)

    def draw() -> None:
        if newest:
            if (picture := newest.pop()) is None:
                root.destroy()
                return
            label.picture = tkinter.PhotoImage(data=picture)  # Tk keeps no reference of its own
            label.configure(image=label.picture)
        root.after(EVERY_MS, draw)

    threading.Thread(target=read, daemon=True).start()
    draw()
    root.mainloop()
