"""Real videos from all kinds of containers through the whole program: `--check`, and a training at full size.

That each clip gives exactly the frames of a linear decode is tested in tests/datasets/test_readers.py.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tools import run_net

ROOT = Path(__file__).parents[1]
REAL_CLIPS = ROOT.parent / "shared/real_clips"
DAMAGED = "decord__corrupted.mp4"
NUM_CLASSES = 5

pytestmark = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the folder of real clips is not here")


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """train.csv and test.csv of all clips, five classes; val.csv of one clip."""
    clips = sorted(path for path in REAL_CLIPS.iterdir() if path.suffix in (".mp4", ".avi", ".mkv", ".webm"))
    assert len(clips) == 11
    lines = [f"{path} {i % NUM_CLASSES}\n" for i, path in enumerate(clips)]
    for split, chosen in (("train", lines), ("val", lines[-1:]), ("test", lines)):
        (tmp_path / f"{split}.csv").write_text("".join(chosen))
    return tmp_path


def run(lists: Path, *words: object, options: tuple[str, ...] = ()) -> int:
    settings = ["NUM_GPUS", 0, "DATA.PATH_TO_DATA_DIR", lists, "OUTPUT_DIR", lists / "out"]
    settings += ["MODEL.NUM_CLASSES", NUM_CLASSES, "DATA_LOADER.NUM_WORKERS", 0, "TENSORBOARD.ENABLE", False]
    cfg = ROOT / "configs/Kinetics/TimeSformer_divST_8x32_224.yaml"
    return run_net.main(["--cfg", str(cfg), *options, *map(str, [*settings, *words])])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_check_lists_the_damaged_file_with_its_cause(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["TIMESFORMER.EMBED_DIM", 24, "TIMESFORMER.DEPTH", 1, "TIMESFORMER.NUM_HEADS", 3]
    assert run(lists, *tiny, "TEST.ENABLE", False, options=("--check",)) == 1
    captured = capsys.readouterr()
    unreadable = [line for line in captured.out.splitlines() if line.startswith("unreadable: ")]
    assert len(unreadable) == 1 and f"{DAMAGED} (train.csv:1): frame 36 cannot be decoded" in unreadable[0]
    assert "28 of its 50 frames can" in unreadable[0]
    assert "11 of 11 videos inspected, 1 unreadable" in captured.out
    assert "1 video(s) cannot be read in full" in captured.err


@pytest.mark.slow
def test_full_size_training_and_test_lose_the_damaged_clip_and_nothing_else(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ViT-B, 8x32, 224 pixels, three steps of four clips, then 1 x 3 views of every clip.

    A clip of 8.5 s covers all of the damaged file, so the frames that cannot be decoded are requested.
    """
    status = run(lists, "SOLVER.MAX_EPOCH", 1, "GLOBAL_BATCH_SIZE", 4, "TRAIN.BATCH_SIZE", 2, "LOG_PERIOD", 1)
    captured = capsys.readouterr()
    out = lists / "out"
    shutil.rmtree(out / "checkpoints", ignore_errors=True)  # a gigabyte
    assert status == 0, captured.err
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in history] == ["train"] * 3 + ["val", "test"]
    assert all(0 < row["loss"] < 10 for row in history[:3])

    assert [Path(row["path"]).name for row in rows(out / "failed_clips.csv")] == [DAMAGED]
    (missing,) = rows(out / "missing_videos.csv")
    assert Path(missing["path"]).name == DAMAGED and missing["line"] == "test.csv:1"
    assert "cannot be decoded: 28 of its 50 frames can" in missing["cause"]
    listed = {line.rsplit(" ", 1)[0] for line in (lists / "test.csv").read_text().splitlines()}
    assert {row["path"] for row in rows(out / "predictions.csv")} == listed - {missing["path"]}
    assert "videos scored     10 of 11" in captured.out and f"clip left out: {missing['path']}" in captured.out
