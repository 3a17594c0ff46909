"""The benchmark of explanations knows where the hand is, and tells a map on it from a map beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.explain import hand_boxes, measure, summary
from tests.inference.test_explain import predictor
from tests.models.small_models import small
from timesformer.datasets.gestures.curves import CLASS_NAMES
from timesformer.datasets.gestures.dataset import Settings
from timesformer.datasets.gestures.rendering import render_clip, write_video
from timesformer.video.clip_spec import ClipSpec

SETTINGS = Settings(num_subjects=(1, 1, 1))
CLIP = next(SETTINGS.clips(1))


def test_the_boxes_hold_the_hand() -> None:
    frames = render_clip(0, *CLIP[:3], frame_size=SETTINGS.frame_size, hard=False).mean(axis=3)
    boxes = hand_boxes(SETTINGS, CLIP)
    assert boxes.shape == (len(frames), 4)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    inside = np.stack([(x >= a) & (x <= c) & (y >= b) & (y <= d) for a, b, c, d in boxes])
    brightest = frames > np.quantile(frames, 0.95)  # the hand is brighter than all else
    assert inside[brightest].mean() > 0.95 and inside.mean() < 0.3


@pytest.mark.parametrize("kind", ["rgb", "difference"])
def test_what_is_measured_of_a_clip(kind: str, tmp_path: Path) -> None:
    (tmp_path / CLIP.path).parent.mkdir()
    frames = render_clip(0, *CLIP[:3], frame_size=SETTINGS.frame_size, hard=False)
    write_video(tmp_path / CLIP.path, frames, SETTINGS.codec)
    spec = ClipSpec(num_frames=4, sampling_rate="auto", size=(32, 32), short_side=32, input=kind)
    of = predictor(small(in_chans=spec.input_shape[0], num_classes=12), spec, 12)
    of.class_names = [*CLASS_NAMES]
    right, share, area, strongest, random = measure(of, tmp_path, SETTINGS, CLIP, "rollout")
    assert right in (0.0, 1.0) and 0.05 < share < 0.6 and 0.1 < area < 0.5
    assert abs(strongest) < 1 and abs(random) < 1 and strongest != random


def test_the_line_of_a_method() -> None:
    rows = np.array([[1, 0.4, 0.2, 0.5, 0.1], [1, 0.2, 0.2, 0.6, 0.2], [0, 0.9, 0.1, 0.7, 0.3]])
    line = summary(rows)
    assert line.startswith("hand 0.300 of the map / 0.200 of the area = 1.50 (50% of 2 clips >= 1.5)")
    assert "fall of the score 0.600, at random 0.200, p = 1.2e-01" in line
