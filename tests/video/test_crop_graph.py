"""The exported form of resize and crop gives the pixels of OpenCV, for frames of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timesformer.video.crop_graph import crop_views
from timesformer.video.transforms import EvalTransform


@pytest.mark.parametrize("crop_mode", ["crop", "full"])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_every_pixel_is_that_of_the_transform(crop_mode: str, num_crops: int) -> None:
    generator = np.random.default_rng(num_crops)
    sizes = [(2 * h, 2 * w, h, w) for h, w in ((8, 12), (31, 17))] + generator.integers(8, 90, (40, 4)).tolist()
    for height, width, *crop_size in [*sizes, (240, 320, 224, 224), (32, 40, 32, 40)]:
        transform = EvalTransform(
            crop_size=tuple(crop_size),
            num_crops=num_crops,
            crop_mode=crop_mode,
            short_side=int(generator.integers(0, 100)),
        )
        frames = generator.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        views = crop_views(torch.from_numpy(frames)[None], transform)[0]
        assert torch.equal(views, transform(frames)), (height, width, transform)
