"""The table and the picture of tested runs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import yaml

from timesformer.cli import compare

INTERVAL = {"top1": 91.25, "top1_low": 87.5, "top1_high": 94.6}


def finished_run(folder: Path, rate: int | str, scores: dict[str, float], model: str = "TimeSformer") -> Path:
    """A folder with what a test leaves behind."""
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"split": "test", "videos": 240, "scored": 239, **scores}))
    cfg = {"MODEL": {"MODEL_NAME": model}, "DATA": {"NUM_FRAMES": 8, "SAMPLING_RATE": rate}}
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg))
    return folder


def test_a_line_and_a_bar_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    light = finished_run(tmp_path / "light", "auto", INTERVAL, "LightTimeSformer")
    fixed_rate = finished_run(tmp_path / "fixed_rate", 32, {"mAP": 30.0})
    picture = tmp_path / "new folder/comparison.png"
    assert compare.main([str(light), str(fixed_rate), "--out", str(picture)]) == 0
    header, rule, first, second, message = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["run", "model", "input", "videos"] and set(rule) == {"-", " "}
    assert max(len(line) for line in (header, rule, first, second)) <= 80
    for cell in ("light ", "LightTimeSformer", " 8xauto ", "239/240", "top1 91.2", "87.5 to 94.6"):
        assert cell in first
    assert " 8x32 " in second and "mAP 30.0" in second and " to " not in second
    assert first.index("239/240") == second.index("239/240") == header.index("videos")
    assert message == f"picture: {picture}"
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape[0] > 200 and drawn.shape[1] > 1000


def test_runs_on_different_test_lists_are_not_compared_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [finished_run(tmp_path / name, 8, {**INTERVAL, "list": text}) for name, text in (("a", "x"), ("b", "y"))]
    earlier = finished_run(tmp_path / "earlier", 8, INTERVAL)
    picture = ["--out", str(tmp_path / "comparison.png")]
    assert compare.main([*map(str, folders), str(earlier), *picture]) == 0
    out = capsys.readouterr().out
    assert "WARNING: these runs were tested on different lists" in out
    assert "  a: x\n  b: y\n  earlier: unknown\n" in out
    assert compare.main([str(folders[0]), str(folders[0]), str(earlier), *picture]) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_two_runs_on_one_list_are_tested_against_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [finished_run(tmp_path / name, 8, {**INTERVAL, "list": "x"}) for name in ("a", "b")]
    words = [*map(str, folders), "--out", str(tmp_path / "comparison.png")]
    assert compare.main(words) == 0
    assert f"no paired test: there is no predictions.csv in {folders[0]} and {folders[1]}" in capsys.readouterr().out
    rows = [f"{i}.mp4,0,0,p{i % 5},{1 if i < 15 else 0},{0 if i < 15 else 1}" for i in range(20)]
    for folder, text in zip(folders, ("\n".join(rows), "\n".join(rows).replace(",0,1", ",1,0")), strict=True):
        (folder / "predictions.csv").write_text(f"path,label,prediction,subject,score_0,score_1\n{text}\n")
    assert compare.main(words) == 0
    out = capsys.readouterr().out
    assert "only a: 0, only b: 5" in out and "b is better than a on such clips, by 1.2 points or more" in out
    finished_run(folders[1] / "other", 8, {**INTERVAL, "list": "y"})
    (folders[1] / "other/predictions.csv").write_text(f"path,label,prediction,subject,score_0,score_1\n{rows[0]}\n")
    assert compare.main([str(folders[0]), str(folders[1] / "other"), *words[2:]]) == 1
    captured = capsys.readouterr()
    assert "WARNING: these runs" in captured.out and "no paired test, since the two" in captured.err


@pytest.mark.parametrize(
    ("name", "text"), [("results.json", "{"), ("results.json", "[]"), ("config.yaml", ""), ("", "")]
)
def test_damaged_records_of_a_run_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    folder = finished_run(tmp_path / "run", 8, INTERVAL)
    if name:
        (folder / name).write_text(text)
    else:
        (folder / "config.yaml").unlink()
    assert compare.main([str(folder), "--out", str(tmp_path / "c.png")]) == 1
    message = capsys.readouterr().err
    assert str(folder) in message and "Traceback" not in message
    assert ("is damaged" if name else "neither config.yaml nor") in message


def test_a_run_that_was_not_tested_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tested = finished_run(tmp_path / "tested", "auto", INTERVAL)
    (tmp_path / "untested").mkdir()
    picture = tmp_path / "comparison.png"
    assert compare.main([str(tested), str(tmp_path / "untested"), "--out", str(picture)]) == 1
    captured = capsys.readouterr()
    assert f"error: {tmp_path / 'untested'}: no results.json there; test the run first" in captured.err
    assert captured.out == "" and not picture.exists()
