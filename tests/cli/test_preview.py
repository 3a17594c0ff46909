"""The picture of what the model gets: rows for the views, captions, videos that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.datasets.media import write_video
from timesformer.cli.preview import main
from timesformer.visualization import contact_sheets

Rows = list[tuple[str, np.ndarray]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three videos of two classes in train.csv and test.csv, the last an empty file in test.csv."""
    for i in range(3):
        write_video(tmp_path / f"video {i}.mp4", num_frames=30, size=(96, 64))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "names.txt").write_text("wave\nclap\n")
    lines = [f"{tmp_path}/video {i}.mp4 {i % 2}\n" for i in range(3)]
    (tmp_path / "train.csv").write_text("".join(lines))
    (tmp_path / "test.csv").write_text("".join([*lines[:2], f"{tmp_path}/empty.mp4 1\n"]))
    return tmp_path


@pytest.fixture
def preview(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Rows]:
    """Calls the command and returns the rows of the picture that it drew."""
    drawn: list[Rows] = []
    save = contact_sheets.save_contact_sheet

    def noted(rows: Rows, path: Path, title: str) -> None:
        drawn.append(rows)
        save(rows, path, title)

    def call(*options: str, **settings: object) -> Rows:
        settings |= {"DATA.PATH_TO_DATA_DIR": data, "DATA.CLASS_NAMES_PATH": data / "names.txt"}
        settings |= {"MODEL.NUM_CLASSES": 2, "DATA.NUM_FRAMES": 4, "DATA.SAMPLING_RATE": "auto"}
        settings |= {"DATA.TRAIN_JITTER_SCALES": "[40,48]", "DATA.TRAIN_CROP_SIZE": 32, "DATA.TEST_CROP_SIZE": 32}
        settings |= {"OUTPUT_DIR": data / "out"}
        words = [str(word) for pair in settings.items() for word in pair]
        drawn.clear()
        status = main([*options, *words])
        if status:
            raise SystemExit(capsys.readouterr().err)
        return drawn[0]

    monkeypatch.setattr(contact_sheets, "save_contact_sheet", noted)
    return call


def test_training_clips_as_the_model_gets_them(
    preview: Callable[..., Rows], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = preview()
    out = data / "out/preview_train.png"
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert cv2.imread(str(out)) is not None
    assert [frames.shape for _, frames in rows] == [(4, 32, 32, 3)] * 3
    names = {caption.split(" | ")[0] for caption, _ in rows}
    assert names == {"wave", "clap"} and all("4 distinct frames: " in caption for caption, _ in rows)
    again, later = preview(), preview("--epoch", "1", "--num", "2")
    assert [caption for caption, _ in again] == [caption for caption, _ in rows]
    assert len(later) == 2 and [caption for caption, _ in later] != [caption for caption, _ in rows[:2]]


def test_all_views_of_the_test_and_the_videos_that_cannot_be_read(
    preview: Callable[..., Rows], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = preview("--split", "test", "--out", str(data / "pictures/test.png"))
    assert (data / "pictures/test.png").is_file()
    assert len(rows) == 6  # three crops of two videos
    assert ["video 0" in caption for caption, _ in rows] == [True] * 3 + [False] * 3
    expected = f"could not be read: {data}/empty.mp4 (test.csv:3): the file is empty"
    assert expected in capsys.readouterr().err


def test_mixed_clips_say_of_what(preview: Callable[..., Rows], capsys: pytest.CaptureFixture[str]) -> None:
    rows = preview("--mix", "--num", "2", **{"MIXUP.ENABLED": True, "MIXUP.PROB": 1.0, "TRAIN.BATCH_SIZE": 2})
    assert len(rows) == 2
    for caption, _ in rows:
        shares = [float(part.split()[0]) for part in caption.split(" + ")]
        assert sum(shares) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mix"], "Add: MIXUP.ENABLED True"),
        (["--mix", "--split", "test"], "only training clips are mixed"),
        (["--split", "val"], "val.csv; lists there: test.csv, train.csv"),
        (["--cfg", "gone.yaml"], "cannot read config file 'gone.yaml'"),
    ],
)
def test_what_does_not_work_says_why(preview: Callable[..., Rows], options: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        preview(*options)
    assert str(stopped.value.code).strip().startswith("error: ") and message in str(stopped.value.code)


def test_nothing_readable_is_an_error(preview: Callable[..., Rows], data: Path) -> None:
    (data / "train.csv").write_text(f"{data}/empty.mp4 0\n")
    with pytest.raises(SystemExit, match="none of the videos drawn could be read"):
        preview()
