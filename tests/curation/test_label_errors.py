"""Wrong labels come first in the ranking of clips by the scores of models that did not train on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from timesformer.cli.doctor import read_scores
from timesformer.curation.label_errors import Scored, label_findings, rank_labels
from timesformer.datasets.gestures.rendering import render_clip
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.evaluation.baselines import divide, small_motion_images
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.report import write_predictions
from timesformer.utils.errors import UserError


def test_ranking_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.8, 0.15, 0.05], [0.3, 0.3, 0.4]])
    ranking = rank_labels(scores, np.array([0, 0, 1, 1, 2]))
    # means of the labels: 0.75, 0.425, 0.4; only clip 3, labelled 1, is as sure of another class
    assert ranking.likely.tolist() == [False, False, False, True, False]
    assert ranking.order.tolist() == [3, 4, 1, 2, 0]
    np.testing.assert_allclose(ranking.margins, [0.8, 0.2, 0.5, -0.65, 0.1])
    assert ranking.suggested.tolist()[3] == 0


def written(path: Path, records: list[VideoRecord], scores: np.ndarray) -> Scored:
    labels = [record.label for record in records]
    rows = np.arange(len(records))
    predictions = Predictions(rows, labels, scores, [], np.ones(len(records)), [])
    write_predictions(path, VideoList(records), predictions)
    return read_scores(path)


def test_findings_name_the_line_of_the_list_whose_label_counts(tmp_path: Path) -> None:
    records = [VideoRecord(f"{i}.mp4", i % 2, f"all.csv:{i + 1}") for i in range(40)]
    scores = np.array([[0.9, 0.1], [0.1, 0.9]] * 20)
    scores[6] = [0.05, 0.95]
    files = [written(tmp_path / f"{fold}.csv", records[fold::2], scores[fold::2]) for fold in range(2)]
    (found,) = label_findings({"train": VideoList(records)}, files, ["no", "yes"])
    assert found.what == "no, looks like yes" and found.likeness == pytest.approx(-0.9)
    assert str(found.videos[0]) == "train: 6.mp4 (all.csv:7)"
    mended = [VideoRecord(r.path, 1, r.source) if r is records[6] else r for r in records]
    assert label_findings({"train": VideoList(mended)}, files, ["no", "yes"]) == []
    with pytest.raises(UserError, match="0.csv has the scores of 2 classes, the lists 3"):
        label_findings({"train": VideoList(records)}, files, ["no", "yes", "other"])


@pytest.mark.slow
def test_four_of_five_flipped_labels_are_within_the_first_tenth(tmp_path: Path) -> None:
    """480 gestures of 40 people, 5% mislabelled; logistic regression on motion images, folds of other people."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, truth = [], np.tile(np.arange(12), 40)
    people = [f"s{person}" for person in range(40) for _ in range(12)]
    for number, label in enumerate(truth.tolist()):
        frames = render_clip(77, 0, number // 12, label, frame_size=(48, 64), hard=False)
        clip = frames[np.linspace(0, len(frames) - 1, 33).round().astype(int)].transpose(3, 0, 1, 2)
        features.append(small_motion_images(torch.from_numpy(clip.copy())[None]).flatten().numpy())
    draw = np.random.default_rng(77)
    flipped = draw.choice(len(truth), 24, replace=False)
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + draw.integers(1, 12, 24)) % 12
    scores, inputs = np.zeros((len(truth), 12)), np.stack(features)
    for fit, rest in divide(labels, people):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        scores[rest] = model.fit(inputs[fit], labels[fit]).predict_proba(inputs[rest])
    records = [VideoRecord(f"{i}.mp4", int(label), f"all.csv:{i + 1}") for i, label in enumerate(labels)]
    found = label_findings(
        {"all": VideoList(records)}, [written(tmp_path / "p.csv", records, scores)], [*"ABCDEFGHIJKL"]
    )
    first = {int(Path(each.videos[0].record.path).stem) for each in found[:48]}
    assert len(first & {*flipped.tolist()}) >= 0.8 * 24
