"""`timesformer explain` writes a picture and a movie of each video, and one picture of a run's worst clips."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from timesformer.cli import main
from timesformer.inference.explain import deciding
from timesformer.utils.errors import UserError


@pytest.fixture(scope="module")
def tested(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The folder of a run that was trained a little and tested; it has wrong clips."""
    folder = tmp_path_factory.mktemp("run")
    cfg = Path(__file__).parents[2] / "configs/Gestures/StreamTimeSformer_demo.yaml"
    assert main.main(["train", "--cfg", str(cfg), *tiny, "OUTPUT_DIR", str(folder)]) == 0
    return folder


def videos_of(run: Path) -> list[str]:
    with (run / "predictions.csv").open() as file:
        return [row["path"] for row in csv.DictReader(file)]


def test_a_picture_and_a_movie_of_each_video(tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = videos_of(tested)[:2]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    out = tmp_path / "out"
    words = [str(tested), first, str(broken), second, "--out", str(out), "--class", "G3 circle clockwise"]
    assert main.main(["explain", *words, "--method", "rollout"]) == 0
    printed = capsys.readouterr()
    assert f"could not be read: {broken}" in printed.err
    lines = printed.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [first, second]
    assert "predicted G" in lines[0] and " of 4; " in lines[0]
    for video in (first, second):
        (still,) = out.rglob(f"{Path(video).stem}.png")
        picture = cv2.imread(str(still))
        assert picture is not None and picture.shape[1] > 1000
        with av.open(str(still.with_suffix(".mp4"))) as movie:
            frames = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)]
            rate = float(movie.streams.video[0].average_rate or 0)
        assert len(frames) > 20 and 14 <= rate <= 16, "it plays at the speed of the video"
        assert np.std([frame.mean() for frame in frames]) > 0, "something moves"


def test_folders_lists_and_patterns(tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = map(Path, videos_of(tested)[:3])
    clips, out = tmp_path / "clips", tmp_path / "out"
    for path, source in ((clips / "x" / "a.avi", first), (clips / "y" / "a.avi", second), (clips / "b.avi", third)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(source)
    (tmp_path / "list.csv").write_text("clips/x/a.avi\nclips/missing.avi\n")
    sources = [str(clips), str(tmp_path / "list.csv"), str(clips / "*.avi")]
    assert main.main(["explain", str(tested), *sources, "--method", "rollout", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "2 videos were named more than once and count once" in printed.err
    assert f"could not be read: {clips / 'missing.avi'}: no such file" in printed.err
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {f"{name}.{ending}" for name in ("x/a", "y/a", "b") for ending in ("png", "mp4")}


def test_the_worst_clips_of_a_run(tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["explain", str(tested), "--worst", str(tested), "--out", str(tmp_path), "--batch", "64"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "worst_clips_explained.png")
    picture = cv2.imread(str(tmp_path / "worst_clips_explained.png"))
    assert picture is not None and 2000 < picture.shape[0] < 6000


def test_what_cannot_be_explained(tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = videos_of(tested)[0]
    for words, message in (
        ([], "give videos to explain, or --worst RUN, and not both"),
        ([video, "--worst", str(tested)], "give videos to explain, or --worst RUN, and not both"),
        (["--worst", str(tmp_path)], f"{tmp_path / 'worst_clips.csv'} does not exist. --worst takes the OUTPUT_DIR"),
        (["--worst", str(tested), "--class", "G1 up-down"], "leave --class out"),
        ([video, "--class", "G1 down-up"], "the model has no class 'G1 down-up'. Did you mean 'G1 up-down'"),
        ([video, "--method", "lime"], "unknown method 'lime'. Allowed: occlusion, rollout, gradient"),
        ([str(tmp_path / "none.mp4")], "the video could not be read"),
        ([video, "--batch", "0"], "--batch 0: give 1 or more"),
        ([video, "--out", video], f"--out {video} cannot be a folder: File exists"),
    ):
        assert main.main(["explain", str(tested), "--out", str(tmp_path), *words]) == 1
        assert message in capsys.readouterr().err


def test_a_run_without_wrong_clips_has_no_worst(tmp_path: Path) -> None:
    from timesformer.cli.explain import worst_rows

    (tmp_path / "worst_clips.csv").write_text("path,label,prediction,label_score,prediction_score\n")
    with pytest.raises(UserError, match="lists no clip: the test had none wrong"):
        worst_rows(tmp_path)


def test_the_fewest_frames_that_hold_half_of_the_shares() -> None:
    assert deciding(np.array([0.1, 0.2, 0.6, 0.1])) == "60% by frame 3 of 4"
    assert deciding(np.array([0.4, 0.1, 0.3, 0.2])) == "70% by frames 1 3 of 4"
    assert deciding(np.zeros(4)) == "no frame speaks for it"
