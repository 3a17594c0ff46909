"""The commands `calibrate` and `live` on a run of two steps: what is stored, printed, started and refused."""

from __future__ import annotations

import http.server
import json
import shlex
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

import timesformer
from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli import calibrate, live, train
from timesformer.evaluation.calibration import Calibration
from timesformer.inference import actions
from timesformer.inference.events import Event

EVENT = Event(label=1, name="G2; rm -rf *", score=0.9, start=1.0, end=2.0, decided=2.1)


@pytest.fixture(scope="module")
def run(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("run")
    words = ["--cfg", "Gestures/LightTimeSformer_demo", *tiny, "OUTPUT_DIR", str(folder), "TEST.ENABLE", "False"]
    assert train.main(words) == 0
    return folder


@pytest.fixture(scope="module")
def video(run: Path, gestures_dir: Path) -> str:  # noqa: F811
    return str(sorted(gestures_dir.glob("test/*.avi"))[0])


def test_calibrate_stores_what_live_uses(run: Path, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = timesformer.load(run)
    assert calibrate.main([str(run)]) == 0
    text = capsys.readouterr().out
    after = timesformer.load(run)
    assert after.calibration is not None and after.calibration.clips == 12
    assert after.calibration == before.calibration, "as the training's last validation has it"
    assert f"temperature {after.calibration.temperature:.3f}" in text
    assert 2.0 <= after.calibration.durations_sec[0] <= after.calibration.durations_sec[2] <= 4.0
    assert after.predict(video) == before.predict(video)  # weights and scores are as they were
    assert live.main([str(run), "--source", video, "--threshold", "0.01", "--window", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert lines and {"name", "label", "score", "start", "end", "decided"} == set(lines[0])


def test_the_threshold_is_the_users_or_the_calibrations() -> None:
    safe, unsafe = Calibration(1.0, 0.8), Calibration(1.0, 1.0)
    assert live.threshold_for(None, safe, "run") == (0.8, "")
    assert live.threshold_for(0.5, safe, "run") == live.threshold_for(0.5, unsafe, "run") == (0.5, "")
    threshold, warning = live.threshold_for(None, unsafe, "run")
    assert threshold == 0.9 and "no score was safe" in warning
    threshold, warning = live.threshold_for(None, None, "run")
    assert threshold == 0.6 and "timesformer calibrate run" in warning


def test_record_has_every_frame_and_the_answers_burnt_in(run: Path, video: str, tmp_path: Path) -> None:
    pixels = {}
    for threshold in ("0.01", "1"):
        out = tmp_path / f"{threshold}.mp4"
        assert (
            live.main([str(run), "--source", video, "--threshold", threshold, "--window", "1", "--record", str(out)])
            == 0
        )
        with av.open(str(out)) as movie:
            pixels[threshold] = np.stack([frame.to_ndarray(format="gray") for frame in movie.decode(video=0)]).astype(
                int
            )
    with av.open(video) as given:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in given.decode(video=0)]).astype(int)
    for recorded in pixels.values():
        assert recorded.shape == frames.shape
        assert abs(recorded[:, 20:] - frames[:, 20:]).mean() < 8, "below the text"
        assert abs(recorded[-1, :4] - frames[-1, :4]).mean() > 8, "the text"
        assert abs(recorded[0, :4] - frames[0, :4]).mean() < 8, "no text before the first answer"
    assert (pixels["0.01"] != pixels["1"]).any(), "an event reads otherwise than an answer"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "VIDEO", "--record", "a.avi"], "a.avi: name a file that ends in .mp4"),
        (["--source", "nowhere.mp4"], "nowhere.mp4: cannot be opened"),
        (["--source", "97"], "/dev/video"),
        (["--source", "VIDEO", "--threshold", "1.5"], "--threshold 1.5: give a score above 0"),
        (["--source", "VIDEO", "--stride", "0"], "--stride 0: give seconds"),
        (["--source", "VIDEO", "--exec", "say {nme}"], "the fields are {name}"),
        (["--source", "VIDEO", "--webhook", "ftp://x"], "http://"),
    ],
)
def test_one_sentence_for_what_cannot_be(
    run: Path, video: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live.main([str(run), *(video if word == "VIDEO" else word for word in words)]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_program_gets_the_event_without_a_shell(tmp_path: Path) -> None:
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    path = tmp_path / "said.txt"
    actions.program(shlex.join([sys.executable, "-c", script, str(path), "{name} {score}"]))(EVENT)
    done = threading.Event()
    for _ in range(400):
        if path.is_file() and path.read_text():
            break
        done.wait(0.05)
    assert path.read_text() == "G2; rm -rf * 0.9"


def test_a_program_that_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    actions.program("no-such-program-anywhere")(EVENT)
    assert "cannot be started" in caplog.text


def test_a_webhook_gets_json_and_a_dead_one_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    received, arrived = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    webhook = actions.Webhook(address)
    webhook(EVENT)
    webhook.close()
    assert arrived.wait(30)  # the answer may be here before the server is done with it
    server.shutdown()
    server.server_close()
    assert received == [json.loads(actions.as_json(EVENT))]
    dead = actions.Webhook(address)
    dead(EVENT)
    dead.close()
    assert "was not sent" in caplog.text
