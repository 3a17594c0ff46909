"""Every YAML of the original passes `run_net --check` unchanged; only what the machine lacks is overridden."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.config.test_legacy import ORIGINALS, write
from tests.datasets.media import picture, write_video
from tools import run_net

TIMESFORMERS = [name for name in ORIGINALS if "SLOWFAST" not in name]
SIZE = (160, 120)  # of the rendered videos, in pixels
NUM_FRAMES = 300  # of a video, at 30 a second: longer than the span of any of these configurations but one


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rendered video."""
    return write_video(tmp_path_factory.mktemp("videos") / "a video.mp4", num_frames=NUM_FRAMES, size=SIZE)


def kinetics_lists(folder: Path, video: Path, separator: str) -> None:
    """train.csv, val.csv and test.csv of one video."""
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text(f"{video}{separator}3\n")


def ssv2_tree(folder: Path) -> None:
    """Annotations of 174 labels, frame lists, and the frames of one training and one validation video."""
    labels = {f"Doing {i}": str(i) for i in range(174)}
    (folder / "something-something-v2-labels.json").write_text(json.dumps(labels))
    for split, kind, video_id in (("train", "train", 7), ("val", "validation", 8)):
        entries = [{"id": str(video_id), "template": "Doing [3]"}]
        (folder / f"something-something-v2-{kind}.json").write_text(json.dumps(entries))
        names = [f"{video_id}/{video_id}_{i + 1:06d}.jpg" for i in range(40)]
        (folder / str(video_id)).mkdir()
        for i, name in enumerate(names):
            cv2.imwrite(str(folder / name), picture(i, SIZE)[..., ::-1])
        lines = [f'{video_id} 0 {i} {name} ""' for i, name in enumerate(names)]
        header = "original_vido_id video_id frame_id path labels"
        (folder / f"{split}.csv").write_text("\n".join([header, *lines]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMESFORMERS)
def test_an_original_file_passes_the_check(
    name: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At full size. On a CPU the long and the 448-pixel inputs are only taken forward."""
    original = ORIGINALS[name]
    data = tmp_path / "data"
    data.mkdir()
    overrides = ["NUM_GPUS", "0", "OUTPUT_DIR", str(tmp_path / "out"), "DATA.PATH_TO_DATA_DIR", str(data)]
    if original["TRAIN.DATASET"] == "ssv2":
        ssv2_tree(data)
        overrides += ["DATA.PATH_PREFIX", str(data)]
    else:
        kinetics_lists(data, video, original.get("DATA.PATH_LABEL_SEPARATOR", " "))
    status = run_net.main(["--cfg", write(tmp_path / "original.yaml", original), "--check", *overrides])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert "check passed" in captured.out
    huge = original["DATA.NUM_FRAMES"] > 16 or original["DATA.TRAIN_CROP_SIZE"] > 224
    forward_only = huge or not original["TRAIN.ENABLE"]
    assert ("one clip, forward: logits" if forward_only else "one clip, forward and backward: loss") in captured.out
    assert captured.out.count("MODEL.DROPOUT_RATE has no effect") == 1


@pytest.mark.parametrize("name", [name for name in ORIGINALS if "SLOWFAST" in name])
def test_a_slowfast_file_is_refused_with_the_models_there_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = write(tmp_path / "slowfast.yaml", ORIGINALS[name])
    assert run_net.main(["--cfg", cfg, "NUM_GPUS", "0", "OUTPUT_DIR", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "MODEL.ARCH slowfast: there is no such network" in message
    assert "TimeSformer" in message and "LightTimeSformer" in message
    assert not (tmp_path / "out").exists()
