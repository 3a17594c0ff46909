"""Mixup and CutMix of clips: what is mixed, with whom, and by how much."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from timesformer.datasets.mixing import ClipMixer
from timesformer.utils.random import numpy_generator, torch_seed


def make_mixer(mixup: float = 0.8, cutmix: float = 1.0, prob: float = 1.0, switch: float = 0.5) -> ClipMixer:
    return ClipMixer(num_classes=8, mixup_alpha=mixup, cutmix_alpha=cutmix, prob=prob, switch_prob=switch, seed=0)


def make_batch(size: int) -> tuple[Tensor, Tensor]:
    """Clips (B, 3, 4, 16, 20), all pixels different, each clip of a class of its own."""
    clips = torch.arange(size * 3 * 4 * 16 * 20, dtype=torch.float32).view(size, 3, 4, 16, 20) / 1e4
    return clips, one_hot(torch.arange(size), 8).float()


def test_defect_06_cutmix_changes_pixels_where_it_changes_labels() -> None:
    mixer = make_mixer(mixup=0.0)
    shares = set()
    for epoch in range(40):
        clips, targets = make_batch(2)
        mixed, mixed_targets = mixer(clips, targets, epoch, [0, 1])
        pasted = mixed[0] != clips[0]  # (C, T, H, W)
        rectangle = pasted[0, 0]  # (H, W)
        assert torch.equal(pasted, rectangle.expand_as(pasted))  # the same in every channel and frame
        rows, columns = rectangle.any(1), rectangle.any(0)
        assert torch.equal(rectangle, rows[:, None] & columns)
        assert torch.equal(mixed[0][pasted], clips[1][pasted])
        share = rectangle.float().mean().item()
        assert mixed_targets[0, :2].tolist() == pytest.approx([1 - share, share])
        assert mixed_targets[1, :2].tolist() == pytest.approx([share, 1 - share])
        shares.add(round(share, 3))
    assert len(shares) > 20 and max(shares) > 0.4


def test_mixup_weighs_pixels_as_targets() -> None:
    clips, targets = make_batch(4)
    mixed, mixed_targets = make_mixer(cutmix=0.0)(clips, targets, 3, [0, 1, 2, 3])
    for first, second in ((0, 1), (1, 0), (2, 3), (3, 2)):
        share = mixed_targets[first, first]
        assert mixed_targets[first, second] == pytest.approx(1 - share.item())
        torch.testing.assert_close(mixed[first], share * clips[first] + (1 - share) * clips[second])
    assert 0 < mixed_targets[0, 0] != mixed_targets[2, 2]


def test_mixing_does_not_depend_on_how_the_batch_is_cut() -> None:
    clips, targets = make_batch(8)
    mixer = make_mixer()
    whole = mixer(clips, targets, 1, range(16, 24))
    halves = [mixer(clips[i : i + 4], targets[i : i + 4], 1, range(16 + i, 20 + i)) for i in (0, 4)]
    for part in (0, 1):
        assert torch.equal(whole[part], torch.cat([half[part] for half in halves]))
    assert not torch.equal(whole[1], mixer(clips, targets, 2, range(16, 24))[1])


def test_clip_without_partner_stays() -> None:
    clips, targets = make_batch(4)
    mixed, mixed_targets = make_mixer()(clips, targets, 0, [1, 2, 3, 8])  # only 2 and 3 are partners
    same = [torch.equal(a, b) for a, b in zip(mixed_targets, targets, strict=True)]
    assert same == [True, False, False, True]
    assert torch.equal(mixed[[0, 3]], clips[[0, 3]])


@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
def test_a_pair_is_mixed_as_torchvision_mixes_it_bit_for_bit(kind: str) -> None:
    mixer = make_mixer(cutmix=0.0) if kind == "MixUp" else make_mixer(mixup=0.0)
    clips, targets = make_batch(4)
    mixed, mixed_targets = mixer(clips, targets, 7, [4, 5, 6, 7])
    for index, rows in ((2, [0, 1]), (3, [2, 3])):
        generator = numpy_generator(0, 7, index, 1)
        generator.random(2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(generator))
            transform = getattr(v2, kind)(alpha=0.8 if kind == "MixUp" else 1.0, num_classes=8)
            wanted, wanted_targets = transform(clips[rows].flatten(1, 2), targets[rows])
        assert torch.equal(mixed[rows].flatten(1, 2), wanted) and torch.equal(mixed_targets[rows], wanted_targets)


def test_multi_hot_targets_are_averaged() -> None:
    clips, targets = make_batch(2)
    targets[0, [2, 3]] = 1
    _, mixed = make_mixer(cutmix=0.0)(clips, targets, 0, [0, 1])
    share = mixed[0, 0].item()
    assert mixed[0, :4].tolist() == pytest.approx([share, 1 - share, share, share])


def test_probabilities_choose_the_kind_and_inputs_stay_unchanged() -> None:
    clips, targets = make_batch(2)
    before = clips.clone()

    def kinds(mixer: ClipMixer) -> set[str]:
        seen = set()
        for epoch in range(40):
            mixed, mixed_targets = mixer(clips, targets, epoch, [0, 1])
            if torch.equal(mixed_targets, targets):
                seen.add("none")
            else:
                exchanged = ((mixed[0] == clips[0]) | (mixed[0] == clips[1])).all()
                seen.add("cutmix" if exchanged else "mixup")
        return seen

    assert kinds(make_mixer(prob=0.0)) == {"none"}
    assert kinds(make_mixer(switch=0.0)) == {"mixup"}
    assert kinds(make_mixer()) >= {"mixup", "cutmix"}
    assert kinds(make_mixer(mixup=0.0, switch=0.0)) <= {"cutmix", "none"}
    assert torch.equal(clips, before)


def test_global_random_state_is_untouched() -> None:
    state = torch.get_rng_state()
    make_mixer()(*make_batch(8), 0, range(8))
    assert torch.equal(torch.get_rng_state(), state)
