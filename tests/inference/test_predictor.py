"""A checkpoint alone is enough to predict: the scores are those of the run's own test."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import timesformer
from tests.datasets.media import decode_all, write_video
from tests.inference.conftest import expected
from timesformer.inference import predictor as module
from timesformer.inference.predictor import load
from timesformer.utils.errors import CheckpointError, ConfigError, VideoReadError
from timesformer.weights import read_weights, save_weights

Run = Callable[..., int]


def scores_of(predictor: timesformer.Predictor, video: object) -> list[float]:
    best = dict(predictor.predict(video, topk=12))
    return [best[name] for name in predictor.class_names]


def test_the_checkpoint_alone_gives_the_scores_of_the_test(finished: Path, tmp_path: Path) -> None:
    alone = shutil.copy(sorted((finished / "checkpoints").glob("checkpoint_epoch_*.pyth"))[-1], tmp_path / "model.pyth")
    predictor = timesformer.load(alone)
    wanted = expected(finished)
    assert len(wanted) == 12 and predictor.class_names[0] == "G1 up-down"
    assert (predictor.views.num_clips, predictor.views.num_crops) == (2, 3)
    assert predictor.spec.mean == (0.3, 0.4, 0.5) and predictor.spec.channel_order == "bgr"
    for path, scores in wanted.items():
        np.testing.assert_allclose(scores_of(predictor, path), scores, atol=1e-6)
    many = predictor.predict_many(list(wanted), topk=1, batch_size=12)
    assert [best[0] for best in many if best] == [predictor.predict(path, topk=1)[0] for path in wanted]


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_a_precision_of_gpus_that_a_checkpoint_stores_is_fp32_on_a_cpu(
    finished: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    def stored(*where: Any, **how: Any) -> Any:
        weights = read_weights(*where, **how)
        return replace(weights, settings={**weights.settings, "PRECISION": precision})

    monkeypatch.setattr(module, "read_weights", stored)
    assert load(finished, device="cpu").dtype is None
    with pytest.raises(ConfigError, match=f"PRECISION {precision} needs"):
        load(finished, device="cpu", precision=precision)


def test_the_folder_of_a_run_is_a_source(finished: Path) -> None:
    path, scores = next(iter(expected(finished).items()))
    np.testing.assert_allclose(scores_of(load(finished), path), scores, atol=1e-6)


def test_frames_in_memory_and_folders_of_pictures_are_videos(finished: Path, tmp_path: Path) -> None:
    predictor = load(finished)
    path, scores = next(iter(expected(finished).items()))
    pictures, _ = decode_all(path)
    frames = np.stack(pictures)
    np.testing.assert_allclose(scores_of(predictor, frames), scores, atol=1e-6)
    np.testing.assert_allclose(scores_of(predictor, pictures), scores, atol=1e-6)
    np.testing.assert_allclose(scores_of(predictor, torch.from_numpy(frames)), scores, atol=1e-6)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number:05d}.png"), frame[..., ::-1])
    np.testing.assert_allclose(scores_of(predictor, tmp_path), scores, atol=1e-6)


def test_what_cannot_be_read_is_an_error_or_none(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = load(finished)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoReadError, match="it is a text file, not a video"):
        predictor.predict(tmp_path / "text.mp4")
    with pytest.raises(VideoReadError, match=r"float64 of shape \(4, 8, 8, 3\); allowed: uint8 RGB"):
        predictor.predict(np.zeros((4, 8, 8, 3)))
    good = write_video(tmp_path / "good.mp4")
    logging.getLogger("timesformer").propagate = True
    first, second = predictor.predict_many([tmp_path / "text.mp4", good], topk=2, progress=False)
    assert first is None and second is not None and len(second) == 2 and second[0][1] >= second[1][1]
    assert "text.mp4: it is a text file" in caplog.text


@pytest.mark.parametrize("to", ["hf", "safetensors", "pyth"])
def test_converted_weights_predict_the_same(finished: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / ("folder" if to == "hf" else f"weights.{to}")
    save_weights(read_weights(sorted((finished / "checkpoints").glob("checkpoint_epoch_*.pyth"))[-1]), out, to=to)
    source, converted = load(finished), load(out, precision="fp32", views=timesformer.Views(num_clips=2, num_crops=3))
    assert converted.class_names == source.class_names and converted.spec.num_frames == source.spec.num_frames
    path = next(iter(expected(finished)))
    np.testing.assert_allclose(scores_of(converted, path), scores_of(source, path), atol=1e-5)


def test_a_baseline_is_loaded_by_its_stored_configuration(run: Run, tmp_path: Path) -> None:
    words = ["MODEL.MODEL_NAME", "r3d_18", "DATA.NUM_FRAMES", 4, "SOLVER.MAX_EPOCH", 1]
    assert run(tmp_path, *words) == 0
    path, scores = next(iter(expected(tmp_path).items()))
    np.testing.assert_allclose(scores_of(load(tmp_path), path), scores, atol=1e-5)


def test_sources_that_are_not_enough(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 3)}, tmp_path / "other.pyth")
    with pytest.raises(CheckpointError, match="does not store which model it is of.*create_model"):
        load(tmp_path / "other.pyth")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load(tmp_path / "run")


def test_evaluate_without_a_run(finished: Path) -> None:
    """The library door: a dataset of files, an ordinary DataLoader, `evaluate`."""
    wanted, predictor = expected(finished), load(finished)
    dataset = timesformer.VideoDataset(list(wanted), labels=list(range(12)), spec=predictor.spec)
    sample = dataset[3]
    assert sample.views is not None and sample.views.shape == (1, *predictor.spec.input_shape) and sample.label == 3
    assert len([*dataset]) == 12
    found = timesformer.evaluate(predictor.model, DataLoader(dataset, batch_size=5), spec=predictor.spec)
    assert found.labels == list(range(12)) and found.scores.shape == (12, 12)
    one_view = load(finished, views=timesformer.Views())
    for path, scores in zip(wanted, found.scores, strict=True):
        np.testing.assert_allclose(scores_of(one_view, path), scores, atol=1e-6)
