"""The HTML report of runs that were tested, only tested or not tested, with and without their videos."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from tests.chromium import chromium
from timesformer.cli.main import main
from timesformer.datasets.gestures.rendering import write_video
from timesformer.datasets.records import VideoList, VideoRecord, fingerprint
from timesformer.engine import html_report
from timesformer.engine.html_report import leave_report, write_html
from timesformer.evaluation.audits import audit
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import summarize
from timesformer.evaluation.report import write_predictions
from timesformer.utils.logging import setup_logging

NAMES = ["wave", "<script>alert(1)</script>", 'a "quoted" & $dollar$ class']
NUM_VIDEOS = 30


def rendered(folder: Path) -> VideoList:
    """30 videos of 6 files, each of 10 frames at 15 per second, 160 x 120."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(6):
        frames = np.repeat(generator.integers(0, 255, (10, 15, 20, 3), np.uint8), 8, axis=1).repeat(8, axis=2)
        write_video(folder / f"<b>{i}.avi", frames, "mpeg4")
    paths = [str(folder / f"<b>{i % 6}.avi") for i in range(NUM_VIDEOS)]
    people = [f"S{i // 6}" for i in range(NUM_VIDEOS)]
    records = [VideoRecord(path, i % 3, f"test.csv:{i}", subject=people[i]) for i, path in enumerate(paths)]
    return VideoList(records, NAMES)


def after_test(folder: Path, videos: VideoList, *, prefix: str = "", logits: bool = False) -> Path:
    """What a test leaves of a model that is right in two of three cases."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(1)
    labels = [record.label for record in videos.records]
    multi_label = isinstance(labels[0], tuple)
    scores = generator.dirichlet(np.ones(3), len(labels))
    for row, label in zip(scores, labels, strict=True):
        if not multi_label and generator.random() < 0.6:
            row[[label, row.argmax()]] = row[[row.argmax(), label]]  # type: ignore[index]
    scores = np.log(scores) if logits else scores
    predictions = Predictions(np.arange(len(labels)), labels, scores, [], np.ones(len(labels)), [])
    write_predictions(folder / "predictions.csv", videos, predictions)
    people = videos.people(range(len(labels)))
    metrics = summarize(scores, labels, multi_label=multi_label, people=people)
    results = {"split": "test", "videos": len(labels), "scored": len(labels), **metrics}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "missing_videos.csv").write_text("path,line,cause\nbad<i>.mp4,test.csv:3,the file is empty\n")
    cfg = {"MODEL": {"MODEL_NAME": "TimeSformer"}, "DATA": {"NUM_FRAMES": 8, "MEAN": [0.5, 0.5, 0.5]}}
    (folder / f"{prefix}config.yaml").write_text(yaml.safe_dump(cfg))
    (folder / f"{prefix}dataset.json").write_text(json.dumps({"test": fingerprint(videos.records)}))
    (folder / f"{prefix}versions.json").write_text(json.dumps({"python": "3.11.7", "libraries": {"torch": "2.14"}}))
    return folder


def after_training(folder: Path) -> Path:
    """What a training leaves, without a test."""
    folder.mkdir(exist_ok=True)
    rows = [{"kind": "train", "epoch": e / 4, "step": e, "loss": 2 / e, "top1": 20.0 * e, "lr": 0.1} for e in (1, 2, 4)]
    rows.append({"kind": "val", "epoch": 1, "step": 4, "loss": 1.5, "top1": 41.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text("MODEL:\n  MODEL_NAME: TimeSformer\n")
    return folder


class Outline(HTMLParser):
    """Tags, ids, links and addresses of a page, and its text without styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("style", "script"):
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.attributes if name in attributes]


def report_of(folder: Path) -> Outline:
    page = write_html(folder).read_text(encoding="utf-8")
    outline = Outline(page)
    assert all(address.startswith("data:") for address in outline.values("src"))
    assert all(address.startswith(("data:", "#")) for address in outline.values("href"))
    assert not re.search(r"https?:|url\(|@import|//\w+\.", re.sub(r"data:[^\"]*", "", page))
    assert {address[1:] for address in outline.values("href") if address[0] == "#"} <= {*outline.values("id")}
    assert all(alt.strip() for alt in outline.values("alt")) and len(outline.values("alt")) == outline.tags.count("img")
    assert outline.tags.count("script") == 1 and "alert(1)" not in "".join(re.findall("<script.*?</script>", page))
    return outline


def headings(outline: Outline) -> list[str]:
    return [attributes["id"] or "" for tag, attributes in outline.attributes if tag == "h2"]


@pytest.fixture
def videos(tmp_path: Path) -> VideoList:
    return rendered(tmp_path / "videos")


def test_a_tested_run_shows_everything(tmp_path: Path, videos: VideoList) -> None:
    folder = after_test(after_training(tmp_path / "run"), videos)
    baseline = {"name": "majority", "top1": 33.3, "low": 20.0, "high": 50.0, "seconds": 0.0}
    known = {"train": "another", "test": fingerprint(videos.records)}
    (folder / "baseline.json").write_text(json.dumps({"lists": known, "baselines": [baseline]}))
    (folder / "input_clips.png").write_bytes(b"picture")
    log = "INFO fine\n{0} WARNING overfitting: <i>top-1</i> 99%\n  To try: less\n{0} INFO fine\n"
    (folder / "log.txt").write_text("2026-11-30 11:40:20,304 " + log.format("2026-11-30 11:41:00,001") * 2)
    found = report_of(folder)
    assert headings(found) == [
        *("summary", "curves", "classes", "confusion", "calibration", "clips"),
        *("input", "settings", "data", "environment"),
    ]
    results = json.loads((folder / "results.json").read_text())
    for text in (
        *(f"{results['top1']:.1f}%", f"95% interval {results['top1_low']:.1f} to {results['top1_high']:.1f}"),
        *(
            "30 of 30",
            "The interval is by person: of 5, whose",
            "majority class",
            *NAMES,
            "bad<i>.mp4",
            "the file is empty",
        ),
        *("Last values: training loss 0.500, top-1 80.0% (epoch 1); validation loss 1.500, top-1 41.5% (epoch 1).",),
        *("overfitting: <i>top-1</i> 99%\n  To try: less", "DATA.MEAN", "[0.5, 0.5, 0.5]", "libraries.torch"),
        *(fingerprint(videos.records), "Expected calibration error (ECE, 15 bins of equal width)"),
    ):
        assert text in found.text, text
    assert found.text.count("overfitting:") == 1 and "<b>" in found.text
    assert sum(uri.startswith("data:video/") for uri in found.values("src")) == 12
    assert (folder / "report.html").stat().st_size < 1_000_000


def test_audits_are_shown_where_the_test_has_made_them(tmp_path: Path, videos: VideoList) -> None:
    folder = after_test(tmp_path / "run", videos)
    assert "audits" not in headings(report_of(folder))
    labels = [record.label for record in videos.records]
    swapped = [(2, 1, 0)[label] for label in labels]  # type: ignore[index]
    guesses = np.stack([labels, swapped, labels, np.zeros(30, int), np.zeros(30, int)], axis=1)
    people = videos.people(range(30))
    audits = audit(labels, guesses, NAMES, 3, people=people)  # type: ignore[arg-type]
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"audits": audits}))
    found = report_of(folder)
    order = headings(found)
    assert order.index("calibration") < order.index("audits") < order.index("clips")
    for text in (
        *("The centre view of 30 videos", "95% intervals by person", "needs motion", "66.7 of 100.0 points ["),
        *(f"{NAMES[0]} and {NAMES[2]} (20 of 20)", f"own mirror image\n{NAMES[1]}", "none for certain"),
        *("RANDOM_FLIP: true", "FLIP_LABEL_MAP:"),
    ):
        assert text in found.text, text


def test_the_clips_are_small_copies_of_the_videos(tmp_path: Path, videos: VideoList) -> None:
    import base64

    found = report_of(after_test(tmp_path / "run", videos))
    uri = next(uri for uri in found.values("src") if uri.startswith("data:video/mp4"))
    with av.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.width, stream.height) == ("h264", 150, 112)
        assert (len([*container.decode(stream)]), float(stream.average_rate or 0)) == (10, 15.0)


def test_without_the_videos_it_is_said_and_the_rest_is_there(tmp_path: Path, videos: VideoList) -> None:
    folder = after_test(tmp_path / "run", videos)
    for path in (tmp_path / "videos").iterdir():
        path.unlink()
    found = report_of(folder)
    assert "video" not in found.tags and found.text.count("The video cannot be shown: no such file") == 12
    assert "confusion" in headings(found)


def test_only_tested_and_not_tested(tmp_path: Path, videos: VideoList) -> None:
    found = report_of(after_test(tmp_path / "only_tested", videos, prefix="test_"))
    assert "curves" not in headings(found) and "TimeSformer: only_tested" in found.text
    assert "test_config.yaml" in found.text and fingerprint(videos.records) in found.text
    found = report_of(after_training(tmp_path / "only_trained"))
    assert headings(found) == ["summary", "curves", "settings", "data", "environment"]
    assert "The run has not been tested" in found.text


def test_scores_that_are_no_probabilities_have_no_calibration(tmp_path: Path, videos: VideoList) -> None:
    found = report_of(after_test(tmp_path / "run", videos, logits=True))
    assert "no probabilities" in found.text and "ECE" not in found.text and "confusion" in headings(found)


def test_several_labels_per_video(tmp_path: Path) -> None:
    videos = VideoList([VideoRecord(f"{i}.mp4", (0, 1) if i % 2 else (1,), "") for i in range(20)], NAMES)
    found = report_of(after_test(tmp_path / "run", videos))
    assert headings(found)[:2] == ["summary", "classes"] and "confusion" not in headings(found)
    assert "mAP" in found.text and "average precision" in found.text and NAMES[1] in found.text


@pytest.mark.parametrize("file", ["results.json", "config.yaml", "metrics.jsonl", "dataset.json", "predictions.csv"])
def test_a_damaged_file_is_named(tmp_path: Path, videos: VideoList, file: str, capsys: pytest.CaptureFixture) -> None:
    folder = after_test(tmp_path / "run", videos)
    (folder / file).write_text("[{\n")
    assert main(["report", str(folder)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"\nerror: {folder / file} is ") and "test the run again" in message.lower()


def test_the_command_prints_the_file_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = after_training(tmp_path / "run"), tmp_path / "new/page.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n" and out.is_file() and not (folder / "report.html").exists()
    assert main(["report", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no run: no config.yaml, metrics.jsonl or results.json" in capsys.readouterr().err
    assert main(["report", str(folder), "--out", str(folder / "config.yaml/page.html")]) == 1
    assert f"cannot write {folder}/config.yaml/page.html" in capsys.readouterr().err


def test_a_report_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging()
    leave_report(after_training(tmp_path / "run"), [])
    monkeypatch.setattr(html_report, "write_html", lambda *_, **__: 1 / 0)
    leave_report(tmp_path, [])
    good, bad = capsys.readouterr().out.splitlines()
    assert good == f"report            {tmp_path}/run/report.html"
    assert bad == "WARNING: no report: ZeroDivisionError: division by zero"


@pytest.mark.slow
def test_in_a_browser_clips_play_tables_sort_by_keyboard_and_nothing_is_requested(
    tmp_path: Path, videos: VideoList
) -> None:
    path = write_html(after_test(after_training(tmp_path / "run"), videos))
    with chromium(tmp_path / "profile") as page:
        page.open(path.as_uri())
        assert page.value("[...document.images].every((image) => image.naturalWidth > 100)")
        assert page.value("document.querySelectorAll('video').length") == 12
        played = "new Promise((done) => { clip.ontimeupdate = () => clip.currentTime > 0.2 && done(clip.videoWidth) })"
        page.value("clip = document.querySelector('video'), document.getElementById('play').click()")
        assert page.value(played) == 150
        page.value("document.getElementById('play').click()")
        assert page.value("[...document.querySelectorAll('video')].every((clip) => clip.paused)")
        order = "[...document.querySelectorAll('.sortable tbody th')].map((cell) => cell.textContent)"
        assert page.value(order) == NAMES
        for _ in range(200):
            page.press("Tab")
            if page.value("document.activeElement.textContent") == "class":
                break
        outline = page.value("getComputedStyle(document.activeElement).outlineStyle")
        page.press("Enter")
        assert outline == "solid" and page.value(order) == sorted(NAMES)
        assert page.value("document.querySelector('.sortable th').getAttribute('aria-sort')") == "ascending"
        for direction in (1, -1):
            page.value("document.querySelectorAll('.sortable button')[3].click()")
            numbers = page.value(
                "[...document.querySelectorAll('.sortable tbody tr')].map((r) => +r.cells[3].innerText)"
            )
            assert numbers == sorted(numbers)[::direction] and len({*numbers}) > 1
        page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        assert page.value("document.documentElement.scrollWidth") <= 360  # what is wider scrolls in its own frame
        requested = [
            event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
        ]
        assert {address.partition(":")[0] for address in requested} <= {"file", "data"}
        assert [address for address in requested if address.startswith("file")] == [path.as_uri()]
        assert not [event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
