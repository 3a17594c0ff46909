"""The evaluator: every video once, views joined, the same for any batch size, failures listed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from timesformer.datasets.loader import EvalLoader, SampleKey
from timesformer.datasets.video_dataset import Batch, Failure, Sample
from timesformer.evaluation.evaluate import Predictions, evaluate, join_views
from timesformer.models.vit import TimeSformer
from timesformer.utils.compute import cpu_threads
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.variants import Variants


class Videos(Dataset[Sample]):
    """Ten videos with one to three views each; number 4 cannot be read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: SampleKey) -> Sample:
        index = key.index
        if index == 4:
            return Sample(None, 0, 4, key.position, failures=[Failure(4, "v4.mp4", "test.csv:5", "empty file")])
        generator = torch.Generator().manual_seed(index)
        views = torch.randint(0, 256, (1 + index % 3, 3, 2, 4, 4), generator=generator, dtype=torch.uint8)
        return Sample(views, index % 3, index, key.position, distinct_frames=2.0)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(96, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, clips: Tensor) -> Tensor:
        return self.dropout(self.head(clips.flatten(1)))


def run(*, videos_per_batch: int, rank: int = 0, world_size: int = 1, variants: Variants | None = None) -> Predictions:
    torch.manual_seed(0)
    model = Model().train()
    model.dropout.eval()  # as a frozen part is
    loader = EvalLoader(Videos(), videos_per_batch=videos_per_batch, rank=rank, world_size=world_size)
    spec = ClipSpec(mean=(0.0,) * 3, std=(1.0,) * 3)
    predictions = evaluate(model, loader, spec=spec, variants=variants)
    modes = (model.training, model.head.training, model.dropout.training)
    assert modes == (True, True, False), "every module is given back in the mode it came in"
    return predictions


def test_defect_14_a_video_that_cannot_be_read_is_listed_and_the_rest_scored() -> None:
    predictions = run(videos_per_batch=3)
    assert predictions.indices.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [failure.path for failure in predictions.missing] == ["v4.mp4"]
    assert predictions.num_videos == 10


def test_defect_15_predictions_and_labels_are_two_things() -> None:
    predictions = run(videos_per_batch=3)
    assert predictions.labels == [i % 3 for i in (0, 1, 2, 3, 5, 6, 7, 8, 9)]
    assert predictions.scores.shape == (9, 3)
    np.testing.assert_allclose(predictions.scores.sum(axis=1), 1.0)
    assert predictions.scores.argmax(axis=1).tolist() != predictions.labels


@pytest.mark.parametrize("videos_per_batch", [1, 2, 4])
def test_the_score_does_not_depend_on_batch_sizes(videos_per_batch: int) -> None:
    expected = run(videos_per_batch=10)
    found = run(videos_per_batch=videos_per_batch)
    assert np.array_equal(found.scores, expected.scores)


def test_shares_of_the_processes_join_to_the_whole() -> None:
    whole = run(videos_per_batch=3)
    shares = [run(videos_per_batch=3, rank=rank, world_size=3) for rank in range(3)]
    assert np.concatenate([share.indices for share in shares]).tolist() == whole.indices.tolist()
    assert np.array_equal(np.concatenate([share.scores for share in shares]), whole.scores)


def test_changed_centre_views_are_guessed_beside_the_scores_whatever_the_batches_and_processes() -> None:
    plain, variants = run(videos_per_batch=10), Variants(views=Views(num_clips="auto"), seed=3)
    whole = run(videos_per_batch=10, variants=variants)
    assert plain.guesses is None and whole.guesses is not None and whole.guesses.shape == (9, 5)
    assert np.array_equal(whole.scores, plain.scores) and len(np.unique(whole.guesses)) == 3
    for found in (run(videos_per_batch=n, variants=variants) for n in (1, 4)):
        assert np.array_equal(found.guesses, whole.guesses)
    shares = [run(videos_per_batch=3, rank=rank, world_size=3, variants=variants).guesses for rank in range(3)]
    assert np.array_equal(np.concatenate([share for share in shares if share is not None]), whole.guesses)
    single = [i for i, index in enumerate(whole.indices) if index % 3 == 0]  # videos of one view
    assert np.array_equal(whole.guesses[single, 0], whole.scores[single].argmax(axis=1))
    torch.manual_seed(0)
    weights = Model().head
    for row, index in enumerate(whole.indices):
        views = Videos()[SampleKey(0, 0, int(index))].views
        assert views is not None
        mirrored = views[len(views) // 2].flip(-1).float().div(255)
        with torch.no_grad():
            assert whole.guesses[row, 1] == weights(mirrored.flatten()).argmax()


def test_the_score_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    model = TimeSformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=3, num_frames=4)
    clips = torch.randint(0, 256, (6, 3, 4, 32, 32), dtype=torch.uint8)
    batch = Batch(clips, [0, 1], [0, 1], [0, 1], [4, 2], [1.0, 1.0], [], [], [1.0, 2.0])
    found = []
    for threads in (1, 2, 3, 4):
        with cpu_threads(threads):
            found.append(evaluate(model, [batch], spec=ClipSpec(num_frames=4, size=(32, 32))).scores)
            assert torch.get_num_threads() == threads
    assert all(np.array_equal(scores, found[0]) for scores in found)


def test_views_are_joined_by_mean_of_softmax_sum_or_max() -> None:
    logits = torch.tensor([[-5.0, -1.0], [-3.0, -2.0]])
    torch.testing.assert_close(join_views(logits, "mean", multi_label=False), logits.double().softmax(1).mean(0))
    torch.testing.assert_close(join_views(logits, "mean", multi_label=True), logits.double().sigmoid().mean(0))
    assert join_views(logits, "sum", multi_label=False).tolist() == [-8.0, -3.0]
    # the original's maximum started from zeros, so that negative logits never counted
    assert join_views(logits, "max", multi_label=False).tolist() == [-3.0, -1.0]
