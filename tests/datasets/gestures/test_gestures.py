"""The generated gestures: pairs that differ in the order of frames only, determinism, files, reuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timesformer.config.defaults import get_cfg
from timesformer.datasets.gestures import curves as gesture_curves
from timesformer.datasets.gestures import dataset as gestures
from timesformer.datasets.gestures.curves import CLASS_NAMES, MIRROR_PAIRS, Form, Timing, hand_positions
from timesformer.datasets.gestures.dataset import Gestures, Settings, render_dataset
from timesformer.datasets.gestures.rendering import FPS, render_clip
from timesformer.utils.errors import ConfigError, DataListError

SMALL = Settings(num_subjects=(1, 1, 1), frame_size=(32, 40))
PARTNER = dict(enumerate(range(len(CLASS_NAMES)))) | dict(MIRROR_PAIRS) | {b: a for a, b in MIRROR_PAIRS}
seeds = st.integers(0, 2**32)


def draw(seed: int) -> tuple[Form, Timing]:
    generator = np.random.default_rng(seed)
    return Form.sample(generator, scale=0.9, lean=generator.uniform(-0.1, 0.1)), Timing.sample(generator)


def reversed_timing(timing: Timing) -> Timing:
    """The timing of the same clip played backwards."""
    return replace(timing, rest_before=timing.rest_after, rest_after=timing.rest_before, skew=-timing.skew)


def mirrored(form: Form) -> Form:
    """The form seen in a mirror (left and right swapped)."""
    return replace(form, side=-form.side, phase=-form.phase, tilt=-form.tilt, centre_x=-form.centre_x)


def clip(**changes: object) -> np.ndarray:
    arguments = {
        "seed": 0,
        "split": 0,
        "number": 0,
        "label": 2,
        "frame_size": (32, 40),
        "hard": False,
    } | changes
    return render_clip(**arguments)  # type: ignore[arg-type]


def decode(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.max_b_frames == 0
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), float(stream.average_rate)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_partners_are_one_curve_run_backwards(seed: int) -> None:
    form, timing = draw(seed)
    for label, partner in MIRROR_PAIRS:
        forwards = hand_positions(label, form, timing, 40)
        backwards = hand_positions(partner, form, reversed_timing(timing), 40)
        np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-9)
        assert np.abs(forwards - backwards).max() > 0.2


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_flip_swaps_the_labels_of_the_mirror_pairs_and_no_others(seed: int) -> None:
    form, timing = draw(seed)
    for label, partner in PARTNER.items():
        flipped = hand_positions(label, form, timing, 40) * (-1, 1)
        np.testing.assert_allclose(flipped, hand_positions(partner, mirrored(form), timing, 40), atol=1e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_positions_stay_in_reach_and_time_never_runs_back(seed: int) -> None:
    form, timing = draw(seed)
    progress = timing.progress(60)
    assert progress[0] == 0 and progress[-1] == 1 and np.diff(progress).min() >= 0
    for label in range(len(CLASS_NAMES)):
        assert np.abs(hand_positions(label, form, timing, 40)).max() < 1.4


def test_timing_and_form_are_drawn_alike_in_both_senses_of_time_and_in_the_mirror() -> None:
    generator = np.random.default_rng(0)
    forms = [Form.sample(generator, scale=0.9, lean=0.0) for _ in range(4000)]
    timings = [Timing.sample(generator) for _ in range(4000)]
    before, after, skew = (
        np.array([getattr(t, name) for t in timings]) for name in ("rest_before", "rest_after", "skew")
    )
    quantiles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(before, quantiles), np.quantile(after, quantiles), atol=0.01)
    np.testing.assert_allclose(np.quantile(skew, quantiles), np.quantile(-skew, quantiles), atol=0.04)
    for name in ("side", "phase", "tilt", "centre_x"):
        values = np.array([getattr(form, name) for form in forms])
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_left_right_starts_on_either_side() -> None:
    generator = np.random.default_rng(0)
    assert {Form.sample(generator, scale=1.0, lean=0.0).side for _ in range(20)} == {-1, 1}


def test_smooth_noise_has_unit_variance() -> None:
    generator = np.random.default_rng(0)
    noise = np.stack([gesture_curves.smooth_noise(generator, 30, fps=15, hertz=4) for _ in range(500)])
    assert noise.shape == (500, 30, 2) and abs(noise.std() - 1) < 0.05


def test_pixels_depend_on_seed_person_and_class_alone() -> None:
    frames = clip()
    assert frames.dtype == np.uint8 and frames.shape[1:] == (32, 40, 3) and 2 * FPS <= len(frames) <= 4 * FPS
    np.testing.assert_array_equal(frames, clip())
    for change in ({"seed": 1}, {"split": 1}, {"number": 1}, {"label": 3}, {"hard": True}):
        other = clip(**change)
        assert other.shape != frames.shape or (other != frames).mean() > 0.5, change


def test_files_are_equal_to_the_byte_and_hold_what_was_rendered(tmp_path: Path) -> None:
    for name in ("one", "two"):
        render_dataset(tmp_path / name, SMALL, processes=1)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.avi"))
    assert len(files) == 3 * 12
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    decoded, fps = decode(tmp_path / "one/train/S000_G03.avi")
    assert fps == FPS and decoded.shape == clip().shape
    assert np.abs(decoded.astype(int) - clip()).mean() < 8


def test_h264_and_hard_rendering(tmp_path: Path) -> None:
    render_dataset(tmp_path, SMALL._replace(codec="h264", hard=True))
    decoded, fps = decode(tmp_path / "test/S002_G12.mp4")
    expected = clip(split=2, label=11, hard=True)
    assert fps == FPS and decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 12


def test_people_belong_to_one_split_and_make_every_gesture_once() -> None:
    plan = Settings(0, (3, 1, 2), (32, 40), False, "mpeg4")
    clips = [list(plan.clips(split)) for split in range(3)]
    assert [len(split) for split in clips] == [36, 12, 24]
    people = [{clip.subject for clip in split} for split in clips]
    assert [len(names) for names in people] == [3, 1, 2] and len(set.union(*people)) == 6
    assert len({(c.subject, c.label) for split in clips for c in split}) == 72
    more = Settings(0, (5, 1, 2), (32, 40), False, "mpeg4")  # more people in train are no others in test
    assert [c[:3] for c in more.clips(2)] == [c[:3] for c in clips[2]]


def test_an_interrupted_rendering_continues_and_a_complete_one_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video, written = gestures.write_video, []

    def write_seven(path: Path, frames: np.ndarray, codec: str) -> None:
        if len(written) == 7:
            path.with_name(f".{path.stem}.1.avi").touch()
            raise KeyboardInterrupt
        write_video(path, frames, codec)
        written.append(path)

    monkeypatch.setattr(gestures, "write_video", write_seven)
    with pytest.raises(KeyboardInterrupt):
        render_dataset(tmp_path, SMALL, processes=1)
    monkeypatch.undo()
    assert not (tmp_path / "train.csv").exists()
    before = {path: path.stat().st_mtime_ns for path in written}

    render_dataset(tmp_path, SMALL, processes=1)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(files) == 36 + 5  # nothing unfinished is left
    assert {path: path.stat().st_mtime_ns for path in written} == before
    complete = {path: path.stat().st_mtime_ns for path in files}
    render_dataset(tmp_path, SMALL, processes=1)
    assert {path: path.stat().st_mtime_ns for path in files} == complete


def test_several_processes_render_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = Settings(num_subjects=(2, 1, 1), frame_size=(16, 16))
    for processes in (1, 2):
        render_dataset(tmp_path / str(processes), people, processes=processes)
    assert f"rendering 48 gesture clips into {tmp_path / '2'} (2 processes)" in capsys.readouterr().out
    for path in (tmp_path / "1").rglob("*.avi"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    render_dataset(tmp_path / "gestures", SMALL, processes=1)
    with pytest.raises(ConfigError, match='"seed": 0.*not.*"seed": 1.*DATA.PATH_TO_DATA_DIR'):
        render_dataset(tmp_path / "gestures", SMALL._replace(seed=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/train.csv").write_text("a.avi 0\n")
    with pytest.raises(ConfigError, match="holds files that are not generated gestures"):
        render_dataset(tmp_path / "other", SMALL, processes=1)
    assert (tmp_path / "other/train.csv").read_text() == "a.avi 0\n"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_subjects": (1, 1)}, "NUM_SUBJECTS"),
        ({"frame_size": (33, 40)}, "FRAME_SIZE"),
        ({"codec": "vp9"}, "CODEC"),
    ],
)
def test_settings_that_cannot_be_rendered_name_their_key(tmp_path: Path, change: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"GESTURES.{key}"):
        render_dataset(tmp_path, SMALL._replace(**change))


def test_from_config_lists_records_with_subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES, cfg.GESTURES.NUM_SUBJECTS, cfg.GESTURES.FRAME_SIZE = 12, [1, 1, 1], 32
    dataset = Gestures.from_config(cfg, "val")
    assert dataset.folder.parent == Path("data/gestures")
    videos = dataset.load()
    assert videos.class_names == list(CLASS_NAMES)
    assert [record.label for record in videos.records] == list(range(12))
    assert {record.subject for record in videos.records} == {"S001"}
    assert videos.records[4].source == "val.csv:5" and Path(videos.records[4].path).is_file()
    line = (dataset.folder / "val.csv").read_text().splitlines()[4]
    assert line == "val/S001_G05.avi 4" and str(dataset.folder / line.split(" ")[0]) == videos.records[4].path
    assert (dataset.folder / "class_names.txt").read_text().splitlines() == list(CLASS_NAMES)


def test_hard_rendering_is_larger_unless_a_size_is_set() -> None:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 12
    assert Gestures.from_config(cfg, "train").settings == Settings(0, (60, 10, 20), (84, 96), False, "mpeg4")
    assert Gestures.from_config(cfg, "train").folder.name == "f73933a10299"  # what users have rendered stays in use
    cfg.GESTURES.HARD = True
    assert Gestures.from_config(cfg, "train").settings.frame_size == (120, 160)
    for size in ([64, 64], [84, 96]):
        cfg.GESTURES.FRAME_SIZE = size
        assert Gestures.from_config(cfg, "train").settings.frame_size == tuple(size)


def test_a_model_of_another_number_of_classes_is_reported_before_rendering() -> None:
    with pytest.raises(DataListError, match=r"gestures has 12 classes.*Add: MODEL.NUM_CLASSES 12"):
        Gestures.from_config(get_cfg(), "train")


def test_the_hand_is_seen_against_the_background() -> None:
    frames = clip(frame_size=(84, 96))
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(float)
    still = np.median(grey, axis=0)
    assert np.percentile(np.abs(grey - still), 97) > 25  # a few per cent of the pixels, over time, are the hand
