"""The textbook form computes what the model computes, and the comparison runs in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.model import main
from benchmarks.textbook import BLOCKS, TextbookTimeSformer
from tests.models.small_models import small
from timesformer.cost.benchmark import HUGGING_FACE_SCHEMES, HuggingFaceTimeSformer
from timesformer.cost.measure import saved_for_backward
from timesformer.models.summary import multiply_accumulates, published_multiply_accumulates
from timesformer.models.vit import ATTENTION_TYPES
from timesformer.utils.errors import UserError


def test_every_scheme_is_in_the_textbook() -> None:
    assert set(BLOCKS) == {scheme for scheme in ATTENTION_TYPES if not scheme.startswith("frame_cls")}  # not published


@pytest.mark.parametrize("scheme", BLOCKS)
@pytest.mark.parametrize("sizes", [{}, {"img_size": (40, 24), "num_frames": 3, "patch_size": 8}])
def test_the_textbook_gives_the_same_logits_and_gradients(scheme: str, sizes: dict[str, object]) -> None:
    model = small(scheme, **{"drop_path_rate": 0.0} | sizes).model
    textbook = TextbookTimeSformer(model)
    clips = torch.randn(2, *model.input_shape)
    torch.testing.assert_close(textbook(clips), model(clips), rtol=0, atol=2e-5)
    for each in (model, textbook):
        each(clips).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in textbook.named_parameters()}
    for name, parameter in model.named_parameters():
        error = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
        assert error < 1e-4, name


@pytest.mark.parametrize("scheme", HUGGING_FACE_SCHEMES)
def test_the_textbook_is_hugging_face_in_work_and_memory(scheme: str) -> None:
    """Time cannot be tested; the work is the same, and so is what is kept to within 5%."""
    model = small(scheme, drop_path_rate=0.0, num_classes=400).model
    theirs, textbook = HuggingFaceTimeSformer(model), TextbookTimeSformer(model)
    clips = torch.randn(1, *model.input_shape)
    torch.testing.assert_close(theirs.eval()(clips), textbook(clips), rtol=0, atol=1e-5)
    counts = [multiply_accumulates(each, model.input_shape) for each in (theirs, textbook)]
    assert counts == [published_multiply_accumulates(model)] * 2
    kept = [saved_for_backward(lambda each=each: each.train()(clips), each) for each in (theirs, textbook)]
    assert kept[1] == pytest.approx(kept[0], rel=0.05)


@pytest.mark.parametrize("scheme", ["divided_space_time", "joint_space_time", "space_only"])
def test_published_work_of_the_base_model(scheme: str) -> None:
    with torch.device("meta"):
        sizes = {"img_size": 224, "patch_size": 16, "num_frames": 8, "embed_dim": 768, "depth": 12, "num_heads": 12}
        model = small(scheme, num_classes=400, **sizes).model
    textbook = multiply_accumulates(TextbookTimeSformer(model), model.input_shape)
    assert published_multiply_accumulates(model) == textbook
    if scheme == "divided_space_time":
        assert textbook / 1e9 == pytest.approx(195.8, abs=0.05)


def test_hugging_face_has_no_wide_frames_and_no_other_models() -> None:
    with pytest.raises(UserError, match="square frames only, not 32 x 48"):
        HuggingFaceTimeSformer(small(img_size=(32, 48)))
    with pytest.raises(UserError, match="compares TimeSformers, and Linear is none"):
        HuggingFaceTimeSformer(torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="does not do what space_only does"):
        HuggingFaceTimeSformer(small("space_only"))


def test_the_comparison_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--frames", "2", "--size", "32", "--dim", "64", "--depth", "1", "--batches", "1", "--repeats", "2"]
    main(["--schemes", "divided_space_time", *sizes, "--threads", "1", "--cpu", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| divided_space_time | 1 | forward | timesformer bf16 : textbook fp32 |" in printed
    content = json.loads((tmp_path / "model.json").read_text())
    assert len(content["ratios"]) == 2 * (2 + 4)  # passes x (fp32 against two, bf16 against two in both precisions)
    (result,) = content["results"]
    assert result["difference"]["timesformer"] < 1e-4 and result["difference"]["transformers"] < 1e-4
    saved = result["saved"]["fp32"]
    assert saved["timesformer"] < saved["textbook"] == pytest.approx(saved["transformers"], rel=0.05)
    assert (tmp_path / "model.png").stat().st_size > 10_000
