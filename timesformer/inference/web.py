"""A web page that predicts and explains a video, by Gradio (the extra `[web]`)."""

from __future__ import annotations

import contextlib
import html
import io
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from timesformer.datasets.files import is_video
from timesformer.inference.explain import deciding, describe, explain, panel_of
from timesformer.inference.predictor import Predictor
from timesformer.utils.errors import UserError, VideoReadError

INSTALL = "pip install gradio, or the extra [web] of this package"
KEPT_SEC = 600  # of uploads and pictures; all go when the server ends
SWEEP_SEC = 60
SHOWN_NAMES = 40  # of classes
# The browser asks nobody but the server that the page came from, whatever Gradio's pages name.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"

Message = MutableMapping[str, Any]


class OwnServerOnly:
    """ASGI middleware that adds `POLICY` to every answer."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self._app(scope, receive, with_policy)


@contextlib.contextmanager
def served(predictor: Predictor, *, host: str, port: int, topk: int = 5, max_mb: int = 100) -> Iterator[str]:
    """Serve the page in threads of this process while the context is open; gives its address.

    Nothing is sent to other hosts, and there is no tunnel. Uploads lie in a folder of their own, which is deleted.

    Args:
        predictor: of the answers.
        host: address to listen on.
        port: to listen on.
        topk: classes shown.
        max_mb: largest upload, in 10^6 bytes.

    Raises:
        UserError: Gradio is not installed, or the port is in use.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import
    with tempfile.TemporaryDirectory(prefix="timesformer-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        # Gradio tries its own address first, which no proxy may answer.
        os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), "localhost", host)))
        page = build_page(predictor, topk=topk)
        check_port(host, port)
        from starlette.middleware import Middleware

        _, address, _ = page.queue(max_size=20).launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            max_file_size=max_mb * 10**6,
            share=False,
            ssr_mode=False,  # which would start a second server, by Node
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={"middleware": [Middleware(OwnServerOnly)]},
            theme=_theme(),
        )
        try:
            yield address
        finally:
            page.close(verbose=False)


def build_page(predictor: Predictor, *, topk: int) -> Any:
    """The page, `gradio.Blocks`.

    Raises:
        UserError: Gradio is not installed.
    """
    gr = _gradio()

    def predict(path: str | None) -> dict[str, float]:
        with _in_a_sentence(gr):
            return dict(predictor.predict(_video(path), topk))

    def what_decided(path: str | None) -> Any:
        with _in_a_sentence(gr):
            return explained(predictor, _video(path))

    how: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # one model, one clip at a time
    with gr.Blocks(title="timesformer", delete_cache=(SWEEP_SEC, KEPT_SEC), analytics_enabled=False) as page:
        shown = ", ".join(predictor.class_names[:SHOWN_NAMES]) + ", ..." * (len(predictor.class_names) > SHOWN_NAMES)
        gr.Markdown(f"# {type(predictor.model).__name__}\n{len(predictor.class_names)} classes: {shown}")
        with gr.Row():
            with gr.Column():
                video: Any = gr.Video(
                    label="Video",
                    sources=["upload", "webcam"],
                    include_audio=False,
                    webcam_options=gr.WebcamOptions(mirror=False),  # as the model gets it
                    buttons=[],
                )
                # The file as it came; Gradio's own would have an ffmpeg take the sound out.
                video.preprocess = lambda payload: payload and payload.path
                with gr.Row():
                    ask, why = gr.Button("Predict", variant="primary"), gr.Button("What decided?")
            answer = gr.Label(label="Prediction", num_top_classes=topk)
        picture = gr.Image(
            label="What decided", show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"]
        )
        ask.click(predict, video, answer, **how)
        why.click(what_decided, video, picture, **how)
    return page


def explained(predictor: Predictor, path: str) -> Any:
    """The picture of `timesformer explain`, by occlusion."""
    from PIL import Image

    from timesformer.visualization.explanations import explanations_figure
    from timesformer.visualization.figures import png

    explanation = explain(predictor, path, batch_size=16)
    text = f"{describe(explanation)}; {deciding(explanation.time)}"
    figure = explanations_figure([panel_of({"map": explanation}, text)], f"{Path(path).name}, {explanation.method}")
    return Image.open(io.BytesIO(png(figure)))


def check_port(host: str, port: int) -> None:
    """Whether the address can be listened on.

    Raises:
        UserError: it cannot.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}. Name another port: --port N") from error


@contextlib.contextmanager
def _in_a_sentence(gr: Any) -> Iterator[None]:
    """Show a `UserError` in the page, without the folder that a video was uploaded to."""
    try:
        yield
    except UserError as error:
        text = f"{Path(error.path).name}: {error.cause}" if isinstance(error, VideoReadError) else str(error)
        raise gr.Error(html.escape(text), duration=None, print_exception=False) from error


def _video(path: str | None) -> str:
    """`path`, if a video was given."""
    if not path:
        raise UserError("Upload or record a video first.")
    if not is_video(path):
        raise VideoReadError(path, "this is no video file. Upload a video such as .mp4, .webm, .mov or .avi")
    return path


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the web page needs gradio: {INSTALL} ({error})") from error
    return gradio


def _theme() -> Any:
    """Gradio's look with the fonts of the browser, not those of another host."""
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return _gradio().themes.Default(font=fonts[0], font_mono=fonts[1])
