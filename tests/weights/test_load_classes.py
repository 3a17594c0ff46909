"""The head's rows follow the class names of the data, or the head is reinitialised; either is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.small_models import SMALL, copy_of, equal, saved, small
from timesformer.models.vit import TimeSformer
from timesformer.weights.load import load_weights

THEIRS = ["wave", "point", "left", "right", "stop"]
OURS = ["left", "right", "point", "stop", "wave"]
OTHER = ["left", "right", "up", "down", "stop"]


@pytest.mark.parametrize("complete", [True, False])
def test_another_order_moves_the_heads_rows(tmp_path: Path, complete: bool) -> None:
    source, model = small().eval(), small().eval()
    path = saved(tmp_path, source, class_names=THEIRS)
    report = load_weights(model, path, complete=complete, class_names=OURS)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        theirs, ours = source(clip), model(clip)
    for label, name in enumerate(OURS):
        torch.testing.assert_close(ours[:, label], theirs[:, THEIRS.index(name)])
    assert "rows were put into the data's order of classes (label 0: 'left' in the data, 'wave' in" in str(report)
    assert report.num_loaded == report.num_tensors and report.class_names == THEIRS


def test_only_the_last_layer_of_a_head_has_classes(tmp_path: Path) -> None:
    def net() -> torch.nn.Module:
        layers = (torch.nn.Linear(5, 5), torch.nn.GELU(), torch.nn.Linear(5, 5))
        return torch.nn.ModuleDict({"stem": torch.nn.Linear(5, 5), "head": torch.nn.Sequential(*layers)})

    source, model = net(), net()
    load_weights(model, saved(tmp_path, source, class_names=THEIRS), class_names=OURS)
    order = [THEIRS.index(name) for name in OURS]
    ours, theirs = model.state_dict(), source.state_dict()
    assert torch.equal(ours["head.0.weight"], theirs["head.0.weight"])
    assert all(torch.equal(ours[name], theirs[name][order]) for name in ("head.2.weight", "head.2.bias"))


def test_other_classes_of_the_same_number_reinitialise_the_head(tmp_path: Path) -> None:
    source, model = small(), small()
    before = copy_of(model)
    report = load_weights(model, saved(tmp_path, source, class_names=THEIRS), class_names=OTHER)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if "head" in name else source.state_dict()[name]), name
    reason = "the weights have other classes: wave, point; the data: up, down"
    assert report.reinitialised == ["head.weight", f"head.bias ({reason})"] and report.classes == []


def test_other_classes_in_a_test_are_reported_and_kept(tmp_path: Path) -> None:
    source, model = small(), small()
    report = load_weights(model, saved(tmp_path, source, class_names=THEIRS), complete=True, class_names=OTHER)
    assert equal(model, source.state_dict())
    assert "  classes: the weights have other classes: wave, point; the data: up, down" in str(report)


@pytest.mark.parametrize("theirs, ours", [(THEIRS, THEIRS), ([], OURS), (THEIRS, []), (THEIRS[:4], OURS)])
def test_the_same_or_unknown_names_change_nothing(tmp_path: Path, theirs: list[str], ours: list[str]) -> None:
    source, model = small(), small()
    report = load_weights(model, saved(tmp_path, source, class_names=theirs), class_names=ours)
    assert equal(model, source.state_dict()) and report.details() == []


def test_repeated_names_have_no_order(tmp_path: Path) -> None:
    path = saved(tmp_path, small(), class_names=["a", "a", "b", "c", "d"])
    report = load_weights(small(), path, class_names=["b", "a", "a", "c", "d"])
    assert "other classes: repeated names; the data: repeated names" in report.reinitialised[-1]


def test_another_number_of_classes_is_the_reason_that_is_given(tmp_path: Path) -> None:
    path = saved(tmp_path, small(), class_names=THEIRS)
    report = load_weights(TimeSformer(**SMALL | {"num_classes": 3}), path, class_names=["a", "b", "c"])
    assert report.reinitialised[-1] == "head.bias (5 classes in the weights, 3 in the model)"
