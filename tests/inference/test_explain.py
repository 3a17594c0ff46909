"""What decided is found: a model that looks at one place of one frame is explained by that place and frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.small_models import small
from timesformer.inference.explain import METHODS, covered_frames, explain, fill_of, playback
from timesformer.inference.occlusion import cover, occlusion_in_time, occlusion_map
from timesformer.inference.predictor import Predictor
from timesformer.models.build import create_model
from timesformer.models.vit import ATTENTION_TYPES
from timesformer.utils.errors import UserError
from timesformer.video.clip_spec import ClipSpec

SPEC = ClipSpec(num_frames=4, sampling_rate="auto", size=(32, 32), crop_mode="full")


class Watcher(nn.Module):
    """Class 1 when the third frame is bright at its upper right, else class 0."""

    input_shape = (3, 4, 32, 32)

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :, 2, :8, 24:].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(seen), seen], dim=1)


def video(num_frames: int = 9) -> np.ndarray:
    frames = np.full((num_frames, 64, 64, 3), 40, np.uint8)
    frames[:, :16, 48:] = 250
    return frames


def predictor(model: nn.Module, spec: ClipSpec = SPEC, num_classes: int = 5) -> Predictor:
    names = [f"class {label}" for label in range(num_classes)]
    return Predictor(model.eval(), spec, names)  # type: ignore[arg-type]


def test_occlusion_finds_the_place_and_the_frame_that_any_model_looks_at() -> None:
    found = explain(predictor(Watcher(), num_classes=2), video(), method="occlusion")
    assert found.predicted == found.class_name == "class 1" and found.score > 0.5
    assert found.map.shape == (4, 4, 4) and found.map[2, 0, 3] == pytest.approx(1.0)
    np.testing.assert_allclose(found.time, [0, 0, 1, 0], atol=1e-6)
    assert found.frames.shape == found.pictures.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(found.positions, found.frame_indices)
    other = explain(predictor(Watcher(), num_classes=2), video(), method="occlusion", class_name="class 0")
    assert not other.map.any() and not other.time.any(), "what is there speaks against class 0"


def test_batches_and_windows_of_occlusion() -> None:
    clip = torch.rand(3, 10, 40, 24)
    weights = torch.rand(10, 5, 3)  # of windows of 8 pixels

    def score(clips: Tensor) -> Tensor:
        return (clips.mean(1).unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)) * weights).sum((1, 2, 3))

    fill = torch.zeros(3)
    one, many = (occlusion_map(score, clip, fill, batch_size=size) for size in (1, 64))
    torch.testing.assert_close(one, many)
    means = clip.mean(0).unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4)) * weights  # (10, 5, 3)
    assert one.shape == means.shape
    torch.testing.assert_close(
        one[9], means[9], rtol=1e-3, atol=1e-5
    )  # 8 windows in time over 10 frames: this one alone
    torch.testing.assert_close(one[0], means[:2].sum(0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(one[0], one[1])
    torch.testing.assert_close(
        occlusion_in_time(score, clip, fill, batch_size=3), means.sum((1, 2)), rtol=1e-3, atol=1e-5
    )


def test_windows_that_do_not_divide_the_frame_are_nearly_alike() -> None:
    clip = torch.zeros(1, 1, 20, 8)
    clip[0, 0, 19] = 1.0  # the last row of three windows of 7, 7 and 6
    found = occlusion_map(lambda clips: clips.sum((1, 2, 3, 4)), clip, torch.full((1,), -1.0), batch_size=2)
    assert found.flatten().tolist() == [7 * 8, 7 * 8, 5 * 8 + 2 * 8]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_every_scheme_is_explained_by_every_method(attention_type: str, method: str) -> None:
    torch.manual_seed(0)
    found = explain(predictor(small(attention_type)), video(), method=method, class_name="class 3", batch_size=32)
    assert found.map.shape == (4, 4, 4) and found.time.shape == (4,)
    for shares in (found.map, found.time):
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1.0) or (method == "occlusion" and not shares.any())


def test_a_network_of_torchvision_is_explained_by_occlusion_only() -> None:
    model = create_model("r3d_18", num_classes=5, num_frames=4, img_size=32)
    found = explain(predictor(model), video(), batch_size=64)
    assert found.method == "occlusion" and found.map.shape == (4, 4, 4)
    with pytest.raises(UserError, match="rollout needs the attention of a transformer .* VideoResNet"):
        explain(predictor(model), video(), method="rollout")


@pytest.mark.parametrize("kind", ["difference", "rgb+difference"])
def test_the_map_of_motion_images_lies_over_the_frames_that_they_cover(kind: str) -> None:
    spec = ClipSpec(num_frames=4, sampling_rate="auto", size=(32, 32), crop_mode="full", input=kind)
    frames = np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3), dtype=np.uint8)
    found = explain(predictor(small(in_chans=spec.input_shape[0]), spec), frames, method="gradient")
    assert found.map.shape == (4, 4, 4) and len(found.clip) == 17
    runs = [found.frame_indices[first : first + 5] for first in (0, 4, 8, 12)]
    np.testing.assert_allclose(found.positions, [np.mean(run) for run in runs])
    np.testing.assert_array_equal(found.frames, found.clip[[2, 6, 10, 14]])
    assert len(found.pictures) == 4 and (found.pictures == found.pictures[..., :1]).all(), "motion is grey"


def test_which_frames_a_picture_covers() -> None:
    np.testing.assert_array_equal(covered_frames(3, 3), [[0], [1], [2]])
    np.testing.assert_array_equal(covered_frames(7, 2), [[0, 1, 2, 3], [3, 4, 5, 6]])


def test_parts_are_covered_by_the_mean_colour_and_by_stillness() -> None:
    clip = torch.rand(4, 2, 8, 8)
    spec = ClipSpec(input="rgb+difference")
    torch.testing.assert_close(fill_of(clip, spec), torch.cat([clip[:3].mean((1, 2, 3)), clip[3].min()[None]]))
    torch.testing.assert_close(fill_of(clip[:3], ClipSpec()), clip[:3].mean((1, 2, 3)))
    covered = torch.zeros(2, 8, 8, dtype=torch.bool)
    covered[1, 2, 3] = True
    changed = cover(clip, covered, torch.tensor([5.0, 6.0, 7.0, 8.0]))
    assert changed[:, 1, 2, 3].tolist() == [5, 6, 7, 8] and (changed != clip).sum() == 4


def test_the_playback_is_the_video_as_the_model_sees_it_cut() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    of = predictor(small())
    found = explain(of, frames, method="rollout")
    played, indices, fps = playback(of, frames, found)
    first, last = found.frame_indices[[0, -1]]
    assert played.shape[1:] == (32, 32, 3) and fps == 30
    np.testing.assert_array_equal(indices, np.arange(first, last + 1))
    np.testing.assert_array_equal(played[found.frame_indices - first], found.clip)


def test_a_video_of_one_frame() -> None:
    of = predictor(small())
    found = explain(of, video(1), method="rollout")
    played, indices, fps = playback(of, video(1), found)
    assert len(played) == len(indices) == 1 and fps == 30 and found.positions.tolist() == [0, 0, 0, 0]


def test_what_cannot_be_asked_for() -> None:
    of = predictor(small())
    with pytest.raises(UserError, match="unknown method 'gradcam'. Allowed: occlusion, rollout, gradient"):
        explain(of, video(), method="gradcam")
    with pytest.raises(UserError, match="no class 'clas 1'. Did you mean 'class 1'.*Its 5 classes: class 0, class 1"):
        explain(of, video(), class_name="clas 1")
