"""Changed clips, by their pixels: of the frames that are read, before anything is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from timesformer.datasets.video_dataset import VideoDataset
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.variants import VARIANTS, Variants


def changed(clips: Tensor, *, seed: int = 0, videos: tuple[int, ...] = (0, 1)) -> dict[str, Tensor]:
    return dict(zip(VARIANTS, Variants(seed=seed)(clips, videos[: len(clips)]), strict=True))


def random_clips(num_frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, num_frames, 6, 8), dtype=torch.uint8, generator=generator)


def test_every_frame_is_where_it_belongs() -> None:
    clips = random_clips(8)
    found, before = changed(clips), clips.clone()
    for b, t in np.ndindex(2, 8):
        assert torch.equal(found["mirrored"][b, :, t, :, 0], clips[b, :, t, :, 7])
        assert torch.equal(found["reversed"][b, :, t], clips[b, :, 7 - t])
        assert torch.equal(found["frozen"][b, :, t], clips[b, :, 4])
    assert torch.equal(clips, before)


def test_a_shuffled_clip_has_the_same_frames_in_an_order_of_its_own_that_depends_on_seed_and_video() -> None:
    clips = random_clips(8)[:1].expand(2, -1, -1, -1, -1)
    found = changed(clips)["shuffled"]

    def order(clip: Tensor) -> list[int]:
        return [next(t for t in range(8) if torch.equal(frame, clips[0, :, t])) for frame in clip.unbind(1)]

    first, second = map(order, found)
    assert sorted(first) == sorted(second) == [*range(8)] and first != second and [*range(8)] not in (first, second)
    assert torch.equal(changed(clips)["shuffled"], found)
    assert torch.equal(changed(clips[:1], videos=(1,))["shuffled"][0], found[1])
    assert order(changed(clips, seed=1)["shuffled"][0]) != first


@pytest.mark.parametrize("shown", ["rgb", "difference", "rgb+difference"])
def test_the_model_gets_what_it_would_get_of_a_video_that_was_changed(shown: str) -> None:
    """Read, scaled, cropped, and for motion images compared with the frames before them, which are other ones."""
    spec = ClipSpec(num_frames=4, sampling_rate="auto", size=(24, 24), input=shown, difference_frames=2)
    generator = np.random.default_rng(0)
    # the middle frames of segments of two frames, 1, 3, 5, ..., are those of the reversed video too
    small = generator.integers(0, 256, (2 * spec.sampled_frames + 1, 6, 8, 3), np.uint8)
    video = small.repeat(4, axis=1).repeat(4, axis=2)

    def clip(frames: np.ndarray) -> Tensor:
        views = VideoDataset([np.ascontiguousarray(frames)], spec=spec)[0].views
        assert views is not None
        return views

    found = {name: spec.normalize(each) for name, each in changed(clip(video)).items()}
    torch.testing.assert_close(found["mirrored"], spec.normalize(clip(video[:, :, ::-1])))
    torch.testing.assert_close(found["reversed"], spec.normalize(clip(video[::-1])))
    middle = np.repeat(video[[spec.sampled_frames // 2 * 2 + 1]], len(video), axis=0)
    torch.testing.assert_close(found["frozen"], spec.normalize(clip(middle)))
    plain = spec.normalize(clip(video))
    assert all(not torch.allclose(plain, each, atol=0.1) for each in found.values())
    if shown != "rgb":
        assert not found["frozen"][:, -1].any()  # nothing moves
    if shown == "difference":
        torch.testing.assert_close(found["reversed"], plain.flip(2))


@pytest.mark.parametrize(
    ("clips", "crops", "num_views", "centre"),
    [(1, 1, 1, 0), (1, 3, 3, 1), (3, 1, 3, 1), (10, 3, 30, 16), (4, 3, 12, 7), ("auto", 3, 9, 4), ("auto", 1, 2, 1)],
)
def test_the_centre_view_is_the_centre_crop_of_the_middle_clip(
    clips: int | str, crops: int, num_views: int, centre: int
) -> None:
    views = Views(num_clips=clips, num_crops=crops)  # type: ignore[arg-type]
    assert Variants(views=views).centre(num_views) == centre
