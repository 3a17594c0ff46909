"""Videos and lists with every usual fault through a whole run: reported by name, survived, counted."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.media import truncate, write_audio, write_video
from timesformer.engine.step import StepResult, TrainStep
from tools import run_net

ROOT = Path(__file__).parents[2]
TINY = {
    **{"NUM_GPUS": 0, "TENSORBOARD.ENABLE": False, "DATA_LOADER.NUM_WORKERS": 0, "LOG_PERIOD": 1},
    **{"TRAIN.DATASET": "kinetics", "TEST.DATASET": "kinetics", "MODEL.NUM_CLASSES": 4},
    **{"TIMESFORMER.EMBED_DIM": 24, "TIMESFORMER.DEPTH": 1, "DATA.NUM_FRAMES": 4, "TEST.NUM_SPATIAL_CROPS": 1},
    **{"SOLVER.MAX_EPOCH": 1, "SOLVER.WARMUP_EPOCHS": 0, "TRAIN.BATCH_SIZE": 4, "GLOBAL_BATCH_SIZE": 8},
}


def wrong_header_count(path: Path) -> None:
    """An AVI of 40 frames whose header speaks of 400."""
    data = bytearray(write_video(path, codec="mpeg4", num_frames=40).read_bytes())
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # dwTotalFrames, dwLength
        place = data.index(tag) + offset
        data[place : place + 4] = (400).to_bytes(4, "little")
    path.write_bytes(data)


# Name of the file -> how it comes about, and the cause that is reported.
UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing.mp4": (lambda path: None, "no such file"),
    "empty.mp4": (lambda path: path.touch(), "the file is empty"),
    "text.avi": (lambda path: path.write_text("404 not found\n"), "it is a text file, not a video"),
    "truncated.mp4": (lambda path: truncate(write_video(path), 0.6), "the mp4 is truncated: its index is missing"),
    "audio only.mp4": (write_audio, "it has no video stream (only audio)"),
}
# Name of the file -> how it comes about, and what `--check` remarks; these are trained on and scored.
READABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated.avi": (
        lambda path: truncate(write_video(path, codec="mpeg4", num_frames=60), 0.8),
        "promises 60 frames",
    ),
    "truncated.mkv": (lambda path: truncate(write_video(path, num_frames=60), 0.8), "promises 60 frames"),
    "wrong count.avi": (wrong_header_count, "promises 400 frames and 40 are there"),
    "one frame.mp4": (lambda path: write_video(path, num_frames=1), ""),
}
LONELY = "lonely.mp4"  # an unreadable video, the only one of its class
NAMES = [*(f"good{i}.mp4" for i in range(9)), *UNREADABLE, LONELY, *READABLE]
LINES = [f"{name} {3 if name == LONELY else i % 3}" for i, name in enumerate(NAMES)]
SOURCE = {name: i for i, name in enumerate(NAMES, 1)}  # line of each video in every list


@dataclass
class Outcome:
    """What a run left behind."""

    status: int
    folder: Path
    steps: list[tuple[int, StepResult]]  # planned clips, result

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def table(self, name: str) -> dict[str, dict[str, str]]:
        """Rows of a csv file of the run, by the name of the video."""
        if not (self.folder / name).exists():  # nothing to say
            return {}
        with (self.folder / name).open() as file:
            return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def run(data: Path, output_dir: Path, *words: object, options: tuple[str, ...] = ()) -> int:
    settings = [word for pair in TINY.items() for word in pair]
    settings += ["DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output_dir, *words]
    cfg = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"
    return run_net.main(["--cfg", str(cfg), *options, *map(str, settings)])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad videos of four classes with their lists."""
    folder = tmp_path_factory.mktemp("videos")
    for name in NAMES[:9]:
        write_video(folder / name, num_frames=12)
    for name, (make, _) in (UNREADABLE | READABLE).items():
        make(folder / name)
    (folder / LONELY).write_bytes(b"")
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("\n".join(LINES) + "\n")
    return folder


@pytest.fixture(scope="module")
def outcome(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One epoch and a test on all of them."""
    folder, steps = tmp_path_factory.mktemp("run"), []
    take_step = TrainStep.__call__

    def noted(self: TrainStep, batches: Any, *, num_samples: int, **place: Any) -> StepResult:
        steps.append((num_samples, take_step(self, batches, num_samples=num_samples, **place)))
        return steps[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", noted)
        status = run(videos, folder, "DATA.MAX_FAILED_FRACTION", 0.5)
    return Outcome(status, folder, steps)


@pytest.fixture
def lists(videos: Path, tmp_path: Path) -> Path:
    """Lists of the good videos alone, to be spoilt."""
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("".join(f"{videos / line}\n" for line in LINES[:9]))
    return tmp_path


# ---------------------------------------------------------------- videos


def test_a_run_goes_on_to_its_end(outcome: Outcome) -> None:
    assert outcome.status == 0
    results = json.loads((outcome.folder / "results.json").read_text())
    assert (results["videos"], results["scored"]) == (len(NAMES), 9 + len(READABLE))
    assert f"videos scored     {9 + len(READABLE)} of {len(NAMES)}" in outcome.log
    assert f"({9 + len(READABLE)}/{len(NAMES)} videos)" in outcome.log  # of the validation


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_video_is_told_with_file_line_and_cause(outcome: Outcome, videos: Path, name: str) -> None:
    _, cause = UNREADABLE[name]
    if name == "missing.mp4":  # listed in a table before training
        assert f"1 of the {len(NAMES)} videos of the train list do not exist" in outcome.log
        assert f"train.csv:{SOURCE[name]}  {videos / name}" in outcome.log
        assert name not in outcome.table("failed_clips.csv")
    else:
        assert f"clip left out: {videos / name} (train.csv:{SOURCE[name]}): {cause}" in outcome.log
        failed = outcome.table("failed_clips.csv")[name]
        assert failed["line"] == f"train.csv:{SOURCE[name]}" and failed["cause"].startswith(cause)
    missing = outcome.table("missing_videos.csv")[name]
    assert missing["line"] == f"test.csv:{SOURCE[name]}" and missing["cause"].startswith(cause)
    assert f"  {videos / name} (test.csv:{SOURCE[name]}): {cause}" in outcome.log
    assert name not in outcome.table("predictions.csv")


@pytest.mark.parametrize("name", READABLE)
def test_what_is_left_of_a_video_is_trained_on_and_scored(outcome: Outcome, name: str) -> None:
    assert name not in outcome.table("failed_clips.csv") and name not in outcome.table("missing_videos.csv")
    assert outcome.table("predictions.csv")[name]["label"] == str((SOURCE[name] - 1) % 3)


def test_a_bad_clip_is_replaced_by_its_class_or_the_batch_is_one_smaller(outcome: Outcome) -> None:
    present = [line for line in LINES if not line.startswith("missing")]
    planned = [num_samples for num_samples, _ in outcome.steps]
    assert planned == [8, 8, len(present) - 16]
    trained = [present[index] for _, result in outcome.steps for index in result.indices]
    assert [num - result.num_clips for num, result in outcome.steps] in ([1, 0, 0], [0, 1, 0], [0, 0, 1])
    classes = Counter(line[-1] for line in trained)
    assert classes == Counter(line[-1] for line in present) - Counter("3")
    assert not {line[:-2] for line in trained} & {*UNREADABLE, LONELY}
    assert len(outcome.table("failed_clips.csv")) == len(UNREADABLE)  # the lonely one for the missing


def test_the_check_tells_all_of_them(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["TEST.ENABLE", False, "DATA.MAX_FAILED_FRACTION", 0.5]
    assert run(videos, tmp_path, *words, options=("--check",)) == 1
    captured = capsys.readouterr()
    train_report = captured.out.split("train list:")[1].split("val list:")[0].splitlines()
    for name, (_, cause) in UNREADABLE.items():
        if name != "missing.mp4":
            line = f"unreadable: {videos / name} (train.csv:{SOURCE[name]}): {cause}"
            assert any(found.startswith(line) for found in train_report)
    for name, (_, remark) in READABLE.items():
        reported = [line for line in train_report if line.startswith(f"warning: {videos / name}")]
        assert [remark in line for line in reported] == [True] * bool(remark)
    assert f"{len(UNREADABLE) + 1} video(s) cannot be read in full" in captured.err


# ---------------------------------------------------------------- too many of them


def test_too_many_bad_clips_stop_the_training(
    videos: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (lists / "train.csv").open("a") as file:
        file.write(f"{videos / 'empty.mp4'} 0\n{videos / 'text.avi'} 1\n")
    assert run(lists, tmp_path / "stopped") == 1
    message = capsys.readouterr().err
    assert "2 of 11 clips could not be read, more than DATA.MAX_FAILED_FRACTION 0.1" in message
    assert f"{videos / 'empty.mp4'} (train.csv:10): the file is empty" in message
    assert not (tmp_path / "stopped/checkpoints").exists()
    assert run(lists, tmp_path / "continues", "DATA.MAX_FAILED_FRACTION", 0.2, "TEST.ENABLE", False) == 0


def test_a_test_of_which_nothing_can_be_read_says_so(
    videos: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lists / "test.csv").write_text(f"{videos / 'empty.mp4'} 0\n")
    run(lists, tmp_path / "out")
    assert "videos scored     0 of 1" in capsys.readouterr().out


# ---------------------------------------------------------------- lists


def spoil(lists: Path, line: str) -> None:
    with (lists / "train.csv").open("a") as file:
        file.write(line + "\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no_label_here.mp4", "train.csv:10: no separator between path and label: 'no_label_here.mp4'"),
        ("a.mp4 fish", "train.csv:10: label 'fish' is not a whole number"),
        ("a.mp4 4", "train.csv:10: label 4 is out of range 0..3"),
        ("a.mp4 -1", "train.csv:10: label -1 is out of range 0..3"),
    ],
)
def test_a_line_that_cannot_be_used_stops_the_run_before_it_starts(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    spoil(lists, line)
    assert run(lists, tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not (tmp_path / "out/metrics.jsonl").exists()


def test_all_bad_lines_are_told_at_once(lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(lists, "a.mp4 7\nb.mp4 fish\nc")
    assert run(lists, tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert "3 problems in" in printed and all(f"train.csv:{line}: " in printed for line in (10, 11, 12))
    assert "MODEL.NUM_CLASSES 8" in printed


def test_a_row_given_twice_is_kept_once_and_told(lists: Path, videos: Path, tmp_path: Path) -> None:
    spoil(lists, str(videos / LINES[0]))
    assert run(lists, tmp_path / "out", "TEST.ENABLE", False) == 0
    log = (tmp_path / "out/log.txt").read_text()
    assert "train.csv:10: same video as train.csv:1, kept once" in log and "train: 9 videos" in log


def test_a_row_given_twice_with_two_labels_is_an_error(
    lists: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(lists, f"{videos / 'good0.mp4'} 2")
    assert run(lists, tmp_path / "out") == 1
    assert "train.csv:10: label 2, but train.csv:1 gives the same video label 0" in capsys.readouterr().err


def test_no_test_list_is_told_before_the_training(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lists / "test.csv").unlink()
    assert run(lists, tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert str(lists / "test.csv") in printed and "train.csv, val.csv" in printed and "TEST.SPLIT val" in printed
    assert not (tmp_path / "out/metrics.jsonl").exists()
    assert run(lists, tmp_path / "val", "TEST.SPLIT", "val") == 0
