"""Weights that do not fit are refused with what to set, and nothing is half-loaded; a partial load is requested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.models.small_models import DIVIDED, JOINT, copy_of, image_vit, refused, saved, small
from timesformer.weights.load import load_weights

OTHER_ARCHITECTURES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "ATTENTION_TYPE joint_space_time": ({"attention_type": JOINT}, {}, "divided_space_time in the model"),
    "ATTENTION_TYPE divided_space_time": ({}, {"attention_type": JOINT}, "joint_space_time in the model"),
    "PATCH_SIZE 4": ({"patch_size": 4}, {}, "4 in the weights, 8 in the model"),
    "EMBED_DIM 48": ({"embed_dim": 48}, {}, "48 in the weights, 24 in the model"),
    "DEPTH 3": ({"depth": 3}, {}, "3 in the weights, 2 in the model"),
    "DEPTH 1": ({"depth": 1}, {}, "1 in the weights, 2 in the model"),
    "MLP_RATIO 2.0": ({"mlp_ratio": 2.0}, {}, "2.0 in the weights, 4.0 in the model"),
    "QKV_BIAS False": ({"qkv_bias": False}, {}, "False in the weights, True in the model"),
    "NUM_HEADS 4": ({"num_heads": 4}, {}, "4 in the weights, 2 in the model"),
}


@pytest.mark.parametrize("setting", OTHER_ARCHITECTURES)
@pytest.mark.parametrize("complete", [True, False])
def test_another_architecture_is_named_with_the_setting(tmp_path: Path, setting: str, complete: bool) -> None:
    in_file, in_model, found = OTHER_ARCHITECTURES[setting]
    heads = {"TIMESFORMER": {"ATTENTION_TYPE": DIVIDED, "EMBED_DIM": 24, "NUM_HEADS": in_file.get("num_heads", 2)}}
    path = saved(tmp_path, small(**in_file), cfg=yaml.dump(heads))
    message = refused(small(**in_model), path, complete=complete)
    assert f"set TIMESFORMER.{setting}" in message and found in message
    assert message.count("set TIMESFORMER.") == 1 and "nothing was loaded" in message
    assert ("allow_partial=True (TRAIN.ALLOW_PARTIAL_LOAD True)" in message) is not complete


def test_layers_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    path, tensors = image_vit(tmp_path)
    torch.save(tensors | {f"blocks.{i}.ls1.gamma": torch.ones(24) for i in range(2)}, path)
    assert "layers that the model does not have: blocks.*.ls1.gamma (2x)" in refused(small(), path)


def test_all_settings_stand_in_one_line_that_works_when_it_is_followed(tmp_path: Path) -> None:
    source = small(DIVIDED, embed_dim=48, num_heads=6, patch_size=4)
    path = saved(tmp_path, source, num_heads=6)
    message = refused(small(), path)
    assert "set TIMESFORMER.EMBED_DIM 48 TIMESFORMER.PATCH_SIZE 4 TIMESFORMER.NUM_HEADS 6" in message
    words = message.partition("set ")[2].splitlines()[0].split()
    sizes = {key.rpartition(".")[2].lower(): int(value) for key, value in zip(words[::2], words[1::2], strict=True)}
    assert load_weights(small(**sizes), path, complete=True).coverage == 1.0
    report = load_weights(small(**sizes | {"num_heads": 4, "patch_size": 8}), path, allow_partial=True)
    assert "NUM_HEADS: 6 in the weights, 4 in the model" in report.differences and "set TIMES" not in str(report)


def test_an_image_vit_of_another_number_of_heads_is_refused(tmp_path: Path) -> None:
    path, _ = image_vit(tmp_path, embed_dim=192, num_heads=3, depth=1)
    message = refused(small(embed_dim=192, num_heads=12, depth=1), path)
    assert "NUM_HEADS: 3 in the weights, 12 in the model" in message and "set TIMESFORMER.NUM_HEADS 3" in message
    assert "set TIMESFORMER.EMBED_DIM 192 TIMESFORMER.NUM_HEADS 3" in refused(small(depth=1), path)
    torch.save({f"model.{k}": v for k, v in small(embed_dim=50).model.state_dict().items()}, path)
    assert "and TIMESFORMER.NUM_HEADS to what" in refused(small(embed_dim=48, num_heads=12), path)


@pytest.mark.parametrize("form", ["no row", "no token"])
def test_an_image_vit_whose_class_token_has_no_position(tmp_path: Path, form: str) -> None:
    path, tensors = image_vit(tmp_path)
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    if form == "no token":
        del tensors["cls_token"]
    torch.save(tensors, path)
    assert "positions without a class token, which this project's models have" in refused(small(), path)


BROKEN = {
    "is of type torch.int8": torch.zeros(24, dtype=torch.int8),
    "is of type torch.complex64": torch.zeros(24, dtype=torch.complex64),
    "is of type torch.float8_e4m3fn": torch.zeros(24).to(torch.float8_e4m3fn),
    "holds NaN or infinite values": torch.full((24,), torch.nan),
    "holds NaN or infinite": torch.full((24,), -torch.inf, dtype=torch.bfloat16),
    "is a sparse tensor": torch.zeros(24).to_sparse(),
    "has a shape and no values": torch.zeros(24, device="meta"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("how", [{}, {"complete": True}, {"allow_partial": True}])
@pytest.mark.filterwarnings("ignore:(Sparse|Validating sparse)")
def test_tensors_that_cannot_be_weights_are_refused_by_name(tmp_path: Path, fault: str, how: dict[str, bool]) -> None:
    torch.save(small().state_dict() | {"model.norm.bias": BROKEN[fault]}, tmp_path / "w.pyth")
    message = refused(small(), tmp_path / "w.pyth", **how)
    assert f"norm.bias {fault}" in message and "othing was loaded" in message


def test_counters_and_indices_are_whole_numbers(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    net.register_buffer("relative_position_index", torch.arange(4))
    torch.save({"n_averaged": torch.tensor(3), **net.state_dict()}, tmp_path / "w.pth")
    assert load_weights(net, tmp_path / "w.pth", complete=True).unexpected == ["n_averaged"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_file_of_another_model_shows_both_sides_names(tmp_path: Path, complete: bool) -> None:
    torch.save({"stem.0.weight": torch.zeros(3), "layer1.0.conv.weight": torch.zeros(3)}, tmp_path / "w.pth")
    message = refused(small(), tmp_path / "w.pth", complete=complete)
    assert "0 of 49 names agree: its tensors are called stem.0.weight, layer1.0.conv.weight; the model's" in message
    assert "MODEL.MODEL_NAME" in message
    assert "of another model" in refused(small(), tmp_path / "w.pth", allow_partial=True), "nothing at all would load"


def test_defect_05_names_that_do_not_match_are_an_error(tmp_path: Path) -> None:
    """The original loads nothing from such a file, and trains on without a word."""
    state = {f"net.{name}.x": tensor for name, tensor in small().state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "w.pyth")
    assert "0 of 49 names agree" in refused(small(), tmp_path / "w.pyth")


def test_less_than_90_percent_of_the_backbone_is_an_error_unless_allowed(tmp_path: Path) -> None:
    source = small()
    for lacking, covered in (("blocks.1.mlp.", False), ("blocks.1.norm1.", True)):
        names = [name.removeprefix("model.") for name in source.state_dict() if lacking in name]
        state = {name: tensor for name, tensor in source.state_dict().items() if lacking not in name}
        torch.save(state, tmp_path / "w.pyth")
        if not covered:
            message = refused(small(), tmp_path / "w.pyth")
            assert f"missing: {', '.join(names)}" in message and "at least 90% is needed" in message
        report = load_weights(small(), tmp_path / "w.pyth", allow_partial=not covered)
        assert report.missing == names and (report.coverage >= 0.9) is covered
        assert "all is needed for a test" in refused(small(), tmp_path / "w.pyth", complete=True, allow_partial=True)


def test_coverage_does_not_count_the_head(tmp_path: Path) -> None:
    """A head larger than the backbone may be reinitialised."""
    report = load_weights(small(num_classes=50_000), saved(tmp_path, small()))
    assert report.coverage == 1.0 and report.share < 0.1


def test_partial_loads_list_what_kept_its_initialisation(tmp_path: Path) -> None:
    model = small(mlp_ratio=2.0)
    before = copy_of(model)
    source = small(depth=3)
    report = load_weights(model, saved(tmp_path, source), allow_partial=True)
    for name, tensor in model.state_dict().items():
        expected = source.state_dict()[name]
        assert torch.equal(tensor, expected if expected.shape == tensor.shape else before[name]), name
    assert "blocks.0.mlp.fc1.weight 96x24, the model has 48x24" in report.other_shape
    nothing_fits = refused(small(embed_dim=16), saved(tmp_path, source), allow_partial=True)
    assert "EMBED_DIM: 24 in the weights, 16 in the model" in nothing_fits and "allow_partial" not in nothing_fits
    assert report.differences == [
        "DEPTH: 3 in the weights, 2 in the model",
        "MLP_RATIO: 4.0 in the weights, 2.0 in the model",
    ]
    assert all(name.startswith("blocks.2.") for name in report.unexpected) and len(report.unexpected) == 20
    assert 0 < report.coverage < 0.9 and "differences: DEPTH" in str(report)


def test_a_shape_that_no_setting_explains_is_an_error(tmp_path: Path) -> None:
    state = small().state_dict() | {"model.norm.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "w.pyth")
    assert "of another shape: norm.bias 5, the model has 24" in refused(small(), tmp_path / "w.pyth")


def test_a_test_needs_the_head_and_its_classes(tmp_path: Path) -> None:
    message = refused(small(num_classes=7), saved(tmp_path, small()), complete=True)
    assert "has 5 classes and the model 7" in message and "Set MODEL.NUM_CLASSES 5" in message
    headless = {name: tensor for name, tensor in small().state_dict().items() if "head" not in name}
    torch.save(headless, tmp_path / "w.pyth")
    assert "missing: head.weight, head.bias" in refused(small(), tmp_path / "w.pyth", complete=True)
    report = load_weights(small(), tmp_path / "w.pyth")
    assert report.reinitialised == ["head.weight", "head.bias (the weights have no head)"]


def test_a_divided_file_that_lacks_a_temporal_layer_is_not_patched_up(tmp_path: Path) -> None:
    state = small().state_dict()
    state = {name: tensor for name, tensor in state.items() if "blocks.1.temporal_norm1" not in name}
    torch.save(state, tmp_path / "w.pyth")
    assert "missing: blocks.1.temporal_norm1.weight" in refused(small(), tmp_path / "w.pyth", complete=True)
    assert load_weights(small(), tmp_path / "w.pyth").copied == []
