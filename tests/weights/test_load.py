"""Weights load with a report of all that was done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from tests.models.small_models import DIVIDED, JOINT, SMALL, SPACE, copy_of, equal, image_vit, refused, saved, small
from timesformer.config.defaults import get_cfg
from timesformer.config.load import load_config
from timesformer.models.build import build_model
from timesformer.models.embeddings import sincos_2d
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.weights.load import LoadReport, load_weights
from timesformer.weights.resizing import resize_position, resize_time

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("attention_type", [DIVIDED, JOINT, SPACE])
@pytest.mark.parametrize("complete", [True, False])
def test_the_same_model_loads_whole(tmp_path: Path, attention_type: str, complete: bool) -> None:
    source, model = small(attention_type), small(attention_type)
    report = load_weights(model, saved(tmp_path, source, class_names=list("abcde")), complete=complete)
    assert equal(model, source.state_dict())
    assert (report.num_loaded, report.share, report.coverage) == (report.num_tensors, 1.0, 1.0)
    assert (report.kind, report.class_names, report.details()) == ("TimeSformer", list("abcde"), [])
    counts = f"{report.num_tensors}/{report.num_tensors}"
    first = f"{tmp_path / 'w.pyth'} (TimeSformer): loaded {counts} tensors (100% of parameters, 100% of the backbone)"
    assert str(report) == first


def test_a_model_without_values_takes_all_or_cannot_be_used(tmp_path: Path) -> None:
    source, (whole, partial) = small(), (small().to("meta") for _ in range(2))
    whole.model.norm.requires_grad_(False)
    source.half()
    path = saved(tmp_path, source)
    load_weights(whole, path, complete=True)
    assert equal(whole.to("cpu"), source.float().state_dict()) and whole.model.head.bias.dtype is torch.float32
    assert [name for name, p in whole.named_parameters() if not p.requires_grad] == [
        "model.norm.weight",
        "model.norm.bias",
    ]
    partial.model.head = nn.Linear(24, 7, device="meta")
    assert load_weights(partial, path).reinitialised
    with pytest.raises(NotImplementedError, match="meta tensor"):
        partial.to("cpu")


def test_pretrained_model_in_python_says_what_it_did(tmp_path: Path) -> None:
    source = small()
    model = TimeSformer(**SMALL | {"num_classes": 7}, pretrained_model=str(saved(tmp_path, source)))
    assert torch.equal(model.model.pos_embed, source.model.pos_embed)
    assert "reinitialised: head.weight, head.bias (5 classes in the weights, 7 in the model)" in model.pretrained_report
    assert TimeSformer(**SMALL).pretrained_report == ""


def test_a_model_inside_wrappers_is_loaded_too(tmp_path: Path) -> None:
    source, model = small(), small()
    load_weights(nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": model})}), saved(tmp_path, source), complete=True)
    assert equal(model, source.state_dict())


@pytest.mark.parametrize("complete", [True, False])
def test_other_frames_and_pixels_are_resized_and_announced(tmp_path: Path, complete: bool) -> None:
    source, model = small(), small(img_size=(64, 48), num_frames=16)
    report = load_weights(model, saved(tmp_path, source), complete=complete)
    expected = resize_position(source.model.pos_embed, old_grid=(4, 4), new_grid=(8, 6))
    assert torch.equal(model.model.pos_embed, expected)
    assert torch.equal(model.model.time_embed, resize_time(source.model.time_embed, 16))
    assert report.resized == ["pos_embed 4x4 -> 8x6 (bicubic)", "time_embed 4 -> 16 frames (linear)"]
    assert report.coverage == 1.0


@pytest.mark.parametrize("frames", [8, 16, 32, 96])
@pytest.mark.parametrize("size", [224, 336, 448])
def test_round_trips_over_frames_and_pixels(tmp_path: Path, frames: int, size: int) -> None:
    """8 frames of 224 pixels to another size and back: slow embeddings survive, all else is bit-identical."""
    sizes = {"patch_size": 16, "embed_dim": 16, "depth": 1}
    first = small(img_size=224, num_frames=8, **sizes)
    with torch.no_grad():
        first.model.pos_embed[0, 1:] = resize_position(
            torch.cat([torch.zeros(1, 1, 16), sincos_2d(4, 4, 16)[None]], dim=1), old_grid=(4, 4), new_grid=(14, 14)
        )[0, 1:]
        first.model.time_embed.copy_(torch.linspace(-1.5, 1.5, 8).sin()[None, :, None].expand(1, 8, 16))
    other = small(img_size=size, num_frames=frames, **sizes)
    load_weights(other, saved(tmp_path, first), complete=True)
    back = small(img_size=224, num_frames=8, **sizes)
    load_weights(back, saved(tmp_path, other), complete=True)
    for name, tensor in back.state_dict().items():
        expected = first.state_dict()[name]
        if name.endswith(("pos_embed", "time_embed")):
            assert (tensor - expected).abs().mean() < 0.03 * expected.std(), name
        else:
            assert torch.equal(tensor, expected), name


def test_defect_02_another_number_of_frames_loads_through_the_configuration(tmp_path: Path) -> None:
    keys = {"PATCH_SIZE": 8, "EMBED_DIM": 24, "DEPTH": 2, "NUM_HEADS": 2}
    overrides = [str(part) for key, value in keys.items() for part in (f"TIMESFORMER.{key}", value)]
    overrides += ["DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32", "MODEL.NUM_CLASSES", "5"]
    path = saved(tmp_path, small(num_frames=8))
    (tmp_path / "c.yaml").write_text(f"MODEL: {{MODEL_NAME: TimeSformer}}\nTIMESFORMER: {{PRETRAINED_MODEL: {path}}}\n")
    cfg = load_config(tmp_path / "c.yaml", [*overrides, "DATA.NUM_FRAMES", "16"]).cfg
    report = load_weights(build_model(cfg), cfg.MODEL.WEIGHTS)
    assert report.resized == ["time_embed 8 -> 16 frames (linear)"] and report.coverage == 1.0


def test_defect_04_a_non_square_grid_of_the_same_count_is_resized(tmp_path: Path) -> None:
    source, model = small(), small(img_size=(16, 64))  # 4x4 and 2x8 patches
    report = load_weights(model, saved(tmp_path, source))
    assert report.resized == ["pos_embed 4x4 -> 2x8 (bicubic)"]
    assert not torch.equal(model.model.pos_embed, source.model.pos_embed)
    one_wide = small(img_size=(32, 8))
    assert load_weights(one_wide, saved(tmp_path, source)).resized == ["pos_embed 4x4 -> 4x1 (bicubic)"]


def test_a_non_square_file_needs_its_grid_from_itself_or_from_the_model(tmp_path: Path) -> None:
    source = small(img_size=(16, 24))  # 2x3 patches
    path = saved(tmp_path, source)
    assert load_weights(small(img_size=(16, 24)), path, complete=True).resized == []
    message = refused(small(), path)
    assert "pos_embed is of 6 patches, which is no square" in message and "set DATA.TRAIN_CROP_SIZE" in message
    path = saved(tmp_path, source, cfg=yaml.dump({"DATA": {"TRAIN_CROP_SIZE": [16, 24]}}))
    assert load_weights(small(), path, complete=True).resized == ["pos_embed 2x3 -> 4x4 (bicubic)"]


@pytest.mark.parametrize("in_file, in_model", [(1, 3), (3, 1), (3, 5)])
def test_other_channels(tmp_path: Path, in_file: int, in_model: int) -> None:
    source, model = small(in_chans=in_file), small(in_chans=in_model)
    report = load_weights(model, saved(tmp_path, source))
    assert report.resized == [f"patch_embed.proj.weight {in_file} -> {in_model} channels"]
    weights = [m.model.patch_embed.proj.weight.sum(1) for m in (source, model)]
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("init", ["vit", "scratch"])
@pytest.mark.parametrize("attention_type", [DIVIDED, JOINT, SPACE])
def test_an_image_vit_starts_every_attention_type(tmp_path: Path, attention_type: str, init: str) -> None:
    path, tensors = image_vit(tmp_path, num_classes=9)
    model = TimeSformer(**SMALL | {"attention_type": attention_type, "init": init})
    before = copy_of(model)
    report = load_weights(model, path)
    zero = {name for name in before if "temporal_fc" in name or "time_embed" in name}
    kept = {name for name in before if "head" in name}
    for name, tensor in model.state_dict().items():
        source = tensors.get(name.removeprefix("model.").replace(".temporal_", "."))
        expected = torch.zeros_like(tensor) if name in zero else before[name] if name in kept else source
        assert torch.equal(tensor, expected), name
    assert {f"model.{name}" for name in report.zeroed} == zero and ("set to zero: " in str(report)) == bool(zero)
    assert report.kind == "image ViT" and report.missing == [] and report.coverage > 0.9
    copied = {name for name in report.copied if ".temporal_attn." in name or ".temporal_norm1." in name}
    assert len(copied) == len(report.copied) == (12 if attention_type == DIVIDED else 0)
    reinitialised = {name.partition(" ")[0] for name in report.reinitialised}
    assert reinitialised == {name.removeprefix("model.") for name in kept}


@pytest.mark.parametrize("init", ["vit", "scratch"])
def test_a_still_clip_first_gets_the_image_models_logits(tmp_path: Path, init: str) -> None:
    model, image = TimeSformer(**SMALL, init=init).eval(), small(SPACE, num_frames=1).eval()
    with torch.no_grad():
        for parameter in image.parameters():
            parameter *= 4  # large enough that the tolerance means something
    torch.save(image.model.state_dict(), tmp_path / "vit.pth")
    load_weights(model, tmp_path / "vit.pth")
    picture = torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(picture.expand(-1, -1, 4, -1, -1)), image(picture), rtol=0, atol=1e-4)
        assert (image(picture[0:1]) - image(picture[1:2])).abs().max() > 0.1


def test_an_image_vit_is_no_whole_video_model(tmp_path: Path) -> None:
    path, _ = image_vit(tmp_path)
    message = refused(small(), path, complete=True)
    assert "ATTENTION_TYPE: space_only in the weights, divided_space_time in the model" in message
    assert "ALLOW_PARTIAL_LOAD" not in message
    assert load_weights(small(SPACE), path, complete=True).num_loaded == 32


@pytest.mark.parametrize(
    "name, width, heads", [("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12), ("large", 1024, 16)]
)
def test_timms_own_models_of_every_width(tmp_path: Path, name: str, width: int, heads: int) -> None:
    import timm

    torch.save(timm.create_model(f"vit_{name}_patch16_224", depth=1, img_size=32).state_dict(), tmp_path / "w.pth")
    model = TimeSformer(img_size=48, num_frames=2, embed_dim=width, num_heads=heads, depth=1)
    report = load_weights(model, tmp_path / "w.pth")
    assert report.unexpected == report.missing == [] and report.resized == ["pos_embed 2x2 -> 3x3 (bicubic)"]
    assert report.coverage > 0.9


def test_space_only_of_one_frame_computes_what_timms_model_does(tmp_path: Path) -> None:
    import timm

    theirs = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = TimeSformer(32, num_frames=1, num_classes=5, attention_type=SPACE, embed_dim=192, num_heads=3, depth=2)
    assert load_weights(model.eval(), tmp_path / "w.pth", complete=True).unexpected == []
    picture = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(picture[:, :, None]), theirs(picture), rtol=0, atol=1e-5)


GOLDEN = {
    "a_vit2d_to_divided": ({}, ("temporal_fc", "time_embed")),
    "a2_vit2d_to_joint": ({"attention_type": JOINT}, ("time_embed", "head")),
    "b_time_8to4": ({}, ()),
    "d_head_dropped": ({}, ("temporal_fc", "time_embed", "head")),
    "e_model_state_wrapped": ({}, ()),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_the_original_loads(tmp_path: Path, name: str) -> None:
    arguments, untouched = GOLDEN[name]
    golden = load_file(DATA / f"load_{name}.safetensors")
    tensors = {key.removeprefix("in."): value for key, value in golden.items() if key.startswith("in.")}
    if name.startswith("e_"):
        tensors = {"model_state": {key.partition("/")[2]: value for key, value in tensors.items()}}
    torch.save(tensors, tmp_path / "w.pth")
    model = small(**arguments, num_classes=7)
    before = copy_of(model)
    report = load_weights(model, tmp_path / "w.pth")
    for key, tensor in model.state_dict().items():
        bare = key.removeprefix("model.")
        if any(part in bare for part in untouched):
            assert torch.equal(tensor, before[key] if "head" in bare else torch.zeros_like(tensor)), key
        elif name != "b_time_8to4" or bare != "time_embed":  # ours is linear in time
            assert torch.equal(tensor, golden[f"out.{bare}"]), key
    assert report.missing == report.unexpected == []


@pytest.mark.parametrize("change, expected", [({}, []), ({"num_classes": 3}, ["fc.weight", "fc.bias (5 classes"])])
def test_a_baseline_loads_by_name_and_shape(tmp_path: Path, change: dict[str, int], expected: list[str]) -> None:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = "r3d_18", 5
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 16
    source = build_model(cfg)
    cfg.MODEL.NUM_CLASSES = change.get("num_classes", 5)
    model = build_model(cfg)
    report = load_weights(model, saved(tmp_path, source))
    assert report.kind == "another network, by its own names" and report.coverage == 1.0
    assert [found[: len(line)] for found, line in zip(report.reinitialised, expected, strict=True)] == expected
    assert torch.equal(model.state_dict()["stem.0.weight"], source.state_dict()["stem.0.weight"])
    assert torch.equal(model.state_dict()["stem.1.running_var"], source.state_dict()["stem.1.running_var"])
    assert "of another model" in refused(small(), tmp_path / "w.pyth")


def test_a_model_without_a_head_has_none_to_reinitialise(tmp_path: Path) -> None:
    source, model = (nn.ModuleDict({"stem": nn.Linear(3, 3), "fc": nn.Linear(3, k)}) for k in (5, 4))
    message = refused(model, saved(tmp_path, source))
    assert "of another shape: fc.weight 5x3, the model has 4x3, fc.bias 5, the model has 4" in message


def test_the_average_of_the_weights_is_announced(tmp_path: Path) -> None:
    plain, average = small(), small()
    path = saved(tmp_path, plain, ema_state=average.state_dict())
    model = small()
    assert "(TimeSformer, moving average)" in str(load_weights(model, path, complete=True))
    assert equal(model, average.state_dict())
    load_weights(model, path, complete=True, ema=False)
    assert equal(model, plain.state_dict())


def test_half_precision_weights_go_into_a_full_precision_model(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in small().state_dict().items()}
    torch.save(state, tmp_path / "w.pyth")
    model = small(num_frames=8)
    load_weights(model, tmp_path / "w.pyth", complete=True)
    assert torch.equal(model.model.norm.weight, state["model.norm.weight"].float())


def test_a_bare_vision_transformer_loads_too(tmp_path: Path) -> None:
    source = small()
    model = VisionTransformer(**SMALL, qkv_bias=True)
    load_weights(model, saved(tmp_path, source), complete=True)
    assert torch.equal(model.head.weight, source.model.head.weight)


def test_long_lists_are_cut_short_and_shares_are_not_rounded_up() -> None:
    report = LoadReport(
        "f", "TimeSformer", is_ema=False, has_ema=False, num_loaded=1, num_tensors=2, share=0.99999, coverage=0.9
    )
    report.missing = [f"name{i}" for i in range(20)]
    report.unexpected = ["blocks.0.x.weight", "blocks.1.x.weight", "y"]
    text = str(report)
    assert "name11 and 8 more" in text and "name12" not in text
    assert "unexpected: blocks.*.x.weight (2x), y" in text and "(99.9% of parameters, 90% of the backbone)" in text
