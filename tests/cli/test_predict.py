"""`timesformer predict`: the scores of the test, files that are complete, and one sentence for what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.datasets.media import decode_all, picture, write_video
from tests.inference.conftest import expected, finished, gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli import predict
from timesformer.inference import predictor as predictors


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_scores_are_those_of_the_test(
    finished: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted, names = expected(finished), predictors.load(finished).class_names
    with (tmp_path / "test.csv").open("w") as file:
        file.writelines(f"{path} {label}\n" for label, path in enumerate(wanted))
    words = [str(finished), str(tmp_path / "test.csv"), "--csv", str(tmp_path / "p.csv"), "--json"]
    assert predict.main([*words, str(tmp_path / "p.json"), "--topk", "2", "--batch", "12"]) == 0
    found = rows(tmp_path / "p.csv")
    assert [*found[0]] == ["path", "prediction", "score", *names]
    for row in found:
        scores = [float(row[name]) for name in names]
        np.testing.assert_allclose(scores, wanted[row["path"]], atol=1e-6)
        assert row["prediction"] == names[int(np.argmax(scores))] and float(row["score"]) == max(scores)
    content = json.loads((tmp_path / "p.json").read_text())
    assert [entry["path"] for entry in content] == [*wanted] and content[3]["labels"] == [names[3]]
    assert content[0]["predictions"][0]["name"] == found[0]["prediction"]
    out = capsys.readouterr().out
    assert "12 clips in " in out and "waiting for decoding" in out and "12 of them have labels: top1 " in out


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(
    finished: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/a.mp4")
    (tmp_path / "clips/b.mp4").write_text("no video")
    words = [str(finished), str(tmp_path / "clips"), str(tmp_path / "c.mp4"), "--csv", str(tmp_path / "p.csv")]
    assert predict.main([*words, "--json", str(tmp_path / "p.json"), "--workers", "1"]) == 1
    assert [Path(row["path"]).name for row in rows(tmp_path / "p.csv")] == ["a.mp4"]
    errors = [entry.get("error", "") for entry in json.loads((tmp_path / "p.json").read_text())]
    assert errors == ["", "it is a text file, not a video", "no such file"]
    err = capsys.readouterr().err
    assert "error: 2 of 3 videos could not be read:\n" in err and "c.mp4: no such file" in err


def test_overlays_of_videos_of_one_name(finished: Path, tmp_path: Path) -> None:  # noqa: F811
    """Their folders keep them apart, and where these are the same their endings do."""
    for name in ("x/a.mp4", "y/a.mp4", "y/a.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        dark = [picture(number) // 8 for number in range(9)]
        write_video(tmp_path / name, frames=dark, codec="mpeg4" if name.endswith("avi") else "libx264")
    out = tmp_path / "out"
    assert predict.main([str(finished), str(tmp_path / "x"), str(tmp_path / "y"), "--overlay", str(out)]) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["x/a.mp4", "y/a.avi.mp4", "y/a.mp4.mp4"]
    frames, _ = decode_all(out / "x/a.mp4")
    assert len(frames) == 9 and frames[0].shape == (48, 64, 3)
    assert frames[4][:12].max() > 150 > frames[4][12:].max()  # white letters at the top


def test_an_overlay_never_replaces_a_video(
    finished: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = write_video(tmp_path / "a.mp4").read_bytes()
    assert predict.main([str(finished), str(tmp_path / "a.mp4"), "--overlay", str(tmp_path)]) == 1
    assert "would replace the videos themselves. Name another folder" in capsys.readouterr().err
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_windows_of_a_long_video(finished: Path, tmp_path: Path) -> None:  # noqa: F811
    write_video(tmp_path / "long.mp4", num_frames=90, fps=30)
    words = [str(finished), str(tmp_path / "long.mp4"), "--window", "2s", "--stride", "500ms", "--views", "1x1"]
    assert predict.main([*words, "--timeline", str(tmp_path / "t"), "--overlay", str(tmp_path / "o")]) == 0
    found = rows(tmp_path / "t/long.csv")
    assert [(row["start_sec"], row["end_sec"]) for row in found] == [("0", "2"), ("0.5", "2.5"), ("1", "3")]
    frames, _ = decode_all(tmp_path / "long.mp4")
    model = predictors.load(finished, views=predictors.Views())
    best = model.predict(np.stack(frames[15:75]), topk=1)[0]
    assert found[1]["prediction"] == best[0] and float(found[1]["score"]) == pytest.approx(best[1], abs=1e-6)
    assert (tmp_path / "t/long.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "o/long.mp4").is_file()


def test_a_checkpoint_without_names(
    finished: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = sorted((finished / "checkpoints").glob("checkpoint_epoch_*.pyth"))[-1]
    content = torch.load(source, weights_only=True)
    del content["class_names"]
    torch.save(content, tmp_path / "nameless.pyth")
    words = [str(tmp_path / "nameless.pyth"), str(write_video(tmp_path / "a.mp4"))]
    assert predict.main(words) == 0
    captured = capsys.readouterr()
    assert "nameless.pyth stores no class names: classes are numbers. Name them: --names FILE" in captured.err
    (tmp_path / "names.txt").write_text("".join(f"class {label}\n" for label in range(12)))
    assert predict.main([*words, "--names", str(tmp_path / "names.txt")]) == 0
    captured = capsys.readouterr()
    assert "stores no class names" not in captured.err and "a.mp4  class " in captured.out


def test_a_wrong_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(write_video(tmp_path / "a.mp4"))
    assert predict.main([video, video]) == 1
    message = capsys.readouterr().err
    assert message.count("error: ") == 1 and "a.mp4" in message and "Traceback" not in message
    for words in (["--window", "soon"], ["--views", "3x2"], ["--topk", "0"]):
        with pytest.raises(SystemExit):
            predict.main([video, video, *words])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clips(finished: Path, tmp_path: Path) -> None:  # noqa: F811
    """Warmed up with some, a folder of many clips takes no more."""
    clip = write_video(tmp_path / "clip.mp4", num_frames=10)
    for folder, number in (("few", 200), ("many", 1500)):
        (tmp_path / folder).mkdir()
        for i in range(number):
            shutil.copy(clip, tmp_path / folder / f"{i}.mp4")
    used = []
    for folder in ("few", "many"):
        words = [str(finished), str(tmp_path / folder), "--csv", str(tmp_path / "p.csv"), "--workers", "0"]
        assert predict.main(words) == 0
        used.append(psutil.Process(os.getpid()).memory_info().rss)
    assert used[1] - used[0] < 30e6
