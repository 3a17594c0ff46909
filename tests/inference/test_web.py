"""The page of `timesformer serve`: what it answers, refuses and deletes, in headless Chromium with a fake camera."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import av
import pytest

import timesformer
from tests.chromium import Page, chromium
from timesformer.cli import serve
from timesformer.inference import web
from timesformer.inference.predictor import Predictor
from timesformer.utils.errors import UserError

LIMIT_MB = 1


@pytest.fixture(scope="module")
def predictor(finished: Path) -> Predictor:
    return timesformer.load(finished)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `served` sets is unset again."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_camera(path: Path, video: Path) -> Path:
    """The frames of a video as the uncompressed file that Chromium takes for a camera."""
    with av.open(str(video)) as container, path.open("wb") as out:
        stream = container.streams.video[0]
        out.write(f"YUV4MPEG2 W{stream.width} H{stream.height} F15:1 Ip A1:1 C420jpeg\n".encode())
        for frame in container.decode(stream):
            out.write(b"FRAME\n" + frame.reformat(format="yuv420p").to_ndarray().tobytes())
    return path


def as_mp4(path: Path, video: Path) -> Path:
    with av.open(str(video)) as container, av.open(str(path), "w") as out:
        given = container.streams.video[0]
        stream = out.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = given.width, given.height, "yuv420p"
        for frame in container.decode(given):
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    return path


def click(page: Page, name: str) -> None:
    button = f"[...document.querySelectorAll('button')].find(b => [b.ariaLabel, b.innerText.trim()].includes('{name}'))"
    page.until(button)
    page.value(f"{button}.click()")


def says(text: str) -> str:
    return f"document.body.innerText.includes({json.dumps(text)})"


@pytest.mark.slow
def test_the_page_answers_uploads_and_the_camera(predictor: Predictor, gestures_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: the extra [web]")
    clips = sorted(gestures_dir.glob("test/*.avi"))
    upload, unreadable, other, large = (tmp_path / name for name in ("a.mp4", "text.mp4", "notes.txt", "large.mp4"))
    as_mp4(upload, clips[0])
    unreadable.write_text("no video")
    other.write_text("no video")
    large.write_bytes(bytes((LIMIT_MB + 1) * 10**6))
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags.append(f"--use-file-for-fake-video-capture={write_camera(tmp_path / 'camera.y4m', clips[1])}")
    with (
        web.served(predictor, host="127.0.0.1", port=free_port(), topk=3, max_mb=LIMIT_MB) as address,
        chromium(tmp_path / "profile", *flags) as page,
    ):

        def visit() -> None:
            page.call("Page.navigate", url=address)
            page.until("document.querySelector('input[type=file]')")

        page.open(address)
        page.until("document.querySelector('input[type=file]')")
        click(page, "Predict")
        page.until(says("Upload or record a video first."))
        for file, sentence in (
            (other, "Invalid file type: notes.txt"),
            (large, "exceed the maximum allowed size"),
        ):
            visit()
            page.choose(file)
            page.until(says(sentence))
        visit()
        page.choose(unreadable)
        page.until("document.querySelector('video')")
        click(page, "Predict")
        page.until(says("text.mp4: it is a text file, not a video"))
        assert "Traceback" not in page.value("document.body.innerText")

        visit()
        page.choose(upload)
        page.until("document.querySelector('video')")
        click(page, "Predict")
        best = predictor.predict(upload, 3)
        page.until(says(best[0][0]) + " && " + says("%"))
        text = page.value("document.body.innerText")
        for name, score in best:
            assert f"{name}\n{100 * score:.0f}%" in text, text
        click(page, "What decided?")
        page.until("[...document.querySelectorAll('img')].some(image => image.naturalWidth > 1000)")

        visit()
        click(page, "Capture from camera")
        click(page, "Click to Access Webcam")
        page.until("document.querySelector('video')?.videoWidth")
        click(page, "start recording")
        time.sleep(2)  # of recording
        click(page, "start recording")  # which stops
        page.until("document.querySelector('video')?.src.includes('/file=')")
        click(page, "Predict")
        page.until(" || ".join(says(f"{name}\n") for name in predictor.class_names) + " && " + says("%"))
        requests = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert len(requests) > 20
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]


@pytest.mark.slow
def test_uploads_are_deleted_after_a_while_and_at_the_end(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: the extra [web]")
    monkeypatch.setattr(web, "KEPT_SEC", 1)
    monkeypatch.setattr(web, "SWEEP_SEC", 1)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nnothing\r\n--x--\r\n'
    with web.served(predictor, host="127.0.0.1", port=free_port()) as address:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{address}gradio_api/upload", body, headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            (path,) = map(Path, json.load(answer))
        assert tmp_path in path.parents
        for _ in range(300):
            if not path.exists():
                break
            time.sleep(0.2)
        assert not path.exists()
    assert [*tmp_path.iterdir()] == []


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: .* in use. Name another port: --port N"):
            web.check_port("127.0.0.1", port)


def test_without_gradio_the_command_says_what_to_install(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert serve.main([str(finished)]) == 1
    assert "the web page needs gradio: pip install gradio" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--port", "0"], ["--topk", "0"], ["--max-size", "0"]])
def test_numbers_out_of_range(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["nowhere", *words]) == 1
    assert f"{words[0]} 0: give 1 to" in capsys.readouterr().err
