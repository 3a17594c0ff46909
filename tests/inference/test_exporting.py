"""Exported models give the predictor's scores, in torch, in onnxruntime, and where there is no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.datasets.media import write_video
from tests.inference.conftest import expected
from tests.models.test_registry_contract import OURS, small_config
from timesformer.cli import export as command
from timesformer.inference import exporting
from timesformer.inference.predictor import Predictor, load
from timesformer.models.build import MODELS, build_model
from timesformer.models.vit import ATTENTION_TYPES
from timesformer.utils.errors import CheckpointError
from timesformer.video.clip_spec import INPUTS, ClipSpec, Views

ROOT = Path(__file__).parents[2]


def needs_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"no {package}: pip install 'timesformer[export]'")


def predictor(name: str = "TimeSformer", *, views: Views | None = None, **settings: Any) -> Predictor:
    """A small model with random weights that make scores differ."""
    torch.manual_seed(0)
    cfg = small_config(name)
    cfg.DATA.INPUT = settings.get("input", "rgb")
    cfg.TIMESFORMER.ATTENTION_TYPE = settings.pop("attention_type", cfg.TIMESFORMER.ATTENTION_TYPE)
    model = build_model(cfg).eval()
    if name in OURS:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.head.weight.data.mul_(20)
    _, num_frames, *size = model.input_shape
    spec = ClipSpec(num_frames=num_frames, sampling_rate=2, size=tuple(size), **settings)  # type: ignore[arg-type]
    return Predictor(model, spec, list("abcde"), views or Views())


def quick(cases: Iterable[Any], *fast: Any) -> list[Any]:
    """All but the `fast` ones marked slow: exporting a graph takes seconds."""
    return [case if case in fast else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(("name", "to"), quick(product(MODELS.names(), exporting.FORMATS), ("TimeSformer", "onnx")))
def test_every_model_of_the_registry(name: str, to: str, tmp_path: Path) -> None:
    if to == "onnx":
        needs_onnx()
    model = predictor(name)
    parity, _, _ = exporting.export(model, tmp_path / "m", to=to, videos=exporting.made_up_clips(model, 2))
    assert parity.largest <= 1e-4 and parity.agreeing == parity.num_clips == 2


@pytest.mark.slow
@pytest.mark.parametrize("attention_type", [each for each in ATTENTION_TYPES if each != "divided_space_time"])
def test_every_attention_type(attention_type: str) -> None:
    model = predictor(attention_type=attention_type)
    graph, module = exporting.trace(model).module(), exporting.VideoToScores(model)
    generator = np.random.default_rng(0)
    for batch in (1, 3):
        frames = torch.from_numpy(generator.integers(0, 256, (batch, 4, 50, 41, 3), np.uint8))
        with torch.no_grad():
            torch.testing.assert_close(graph(frames), module(frames), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "ensemble"), quick(product(INPUTS, ["mean", "sum", "max"]), ("rgb+difference", "max"))
)
def test_the_preprocessing_is_in_the_file(kind: str, ensemble: str, tmp_path: Path) -> None:
    needs_onnx()
    settings = {"short_side": 36, "mean": (0.3, 0.4, 0.5), "std": (0.2, 0.25, 0.3), "channel_order": "bgr"}
    views = Views(num_clips=2, num_crops=3, ensemble=ensemble)
    model = predictor(views=views, input=kind, difference_frames=2, **settings)
    parity, runner, _ = exporting.export(
        model, tmp_path / "m.onnx", to="onnx", videos=exporting.made_up_clips(model, 3)
    )
    assert parity.largest <= 1e-4 and parity.agreeing == 3
    assert runner.description.spec == model.spec and runner.description.views == views
    wide = np.random.default_rng(0).integers(0, 256, (2, model.spec.sampled_frames, 33, 90, 3), np.uint8)
    both, single = runner.run(wide), np.concatenate([runner.run(clip[None]) for clip in wide])
    np.testing.assert_allclose(both, single, atol=1e-5)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, trace = predictor(), exporting.trace

    def wrong(model: Predictor) -> Any:
        other = replace(model, model=deepcopy(model.model))
        torch.nn.init.constant_(other.model.head.bias, 0.5)
        other.model.head.bias.data[0] = 0.7
        return trace(other)

    monkeypatch.setattr(exporting, "trace", wrong)
    with pytest.raises(CheckpointError, match=r"m.pt2 was not written: a score of the exported model differs by .*e-0"):
        exporting.export(model, tmp_path / "m.pt2", to="pt2", videos=exporting.made_up_clips(model))
    assert [*tmp_path.iterdir()] == []


def without_torch(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has neither torch nor OpenCV."""
    head = "import sys\nfor name in ('torch', 'cv2', 'fvcore'): sys.modules[name] = None\n"
    words = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_command_and_the_runner_without_torch(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny run: 2 x 3 views, BGR; the scores are those of its own test."""
    needs_onnx()
    out, wanted = tmp_path / "m.onnx", expected(finished)
    assert command.main([str(finished), str(out), "--to", "onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith(f"wrote {out}: ") and "uint8 frames (B, 4, H, W, 3) -> scores (B, 12)" in lines[-2]
    assert lines[-1].startswith("parity on 12 clips: largest difference of a score ") and "12 of 12" in lines[-1]
    code = """
import json
import timesformer
model = timesformer.runtime.load(sys.argv[1])
print(json.dumps([model.class_names, [dict(model.predict(path, topk=12)) for path in sys.argv[2:]]]))
"""
    done = without_torch(code, out, *wanted)
    assert done.returncode == 0, done.stderr
    names, found = json.loads(done.stdout)
    assert names == load(finished).class_names
    for best, scores in zip(found, wanted.values(), strict=True):
        np.testing.assert_allclose([best[name] for name in names], scores, atol=1e-4)


@pytest.mark.slow
def test_eight_bits_say_what_they_cost(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_onnx()
    from timesformer import runtime

    words = [str(finished), str(tmp_path / "m.onnx"), "--to", "onnx", "--int8", "--clips"]
    assert command.main([*words, *list(expected(finished))[:2]]) == 0
    assert "int8: the cost in accuracy is unknown: no clips with labels" in capsys.readouterr().out
    assert command.main([str(finished), str(tmp_path / "n.onnx"), "--to", "onnx", "--int8"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("int8: top1 ") and last.endswith(" on 12 clips")
    path, scores = next(iter(expected(finished).items()))
    difference = np.abs(runtime.load(tmp_path / "n.onnx").score(path) - scores).max()
    assert 0 < difference < 0.1


def test_pt2_holds_the_same(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pt2"
    assert command.main([str(finished), str(out), "--to", "pt2"]) == 0
    runner, (path, scores) = exporting.load_pt2(out), next(iter(expected(finished).items()))
    np.testing.assert_allclose(runner.score(path), scores, atol=1e-4)
    assert runner.predict(path, topk=1)[0][0] == runner.class_names[int(np.argmax(scores))]
    assert b"/timesformer/" not in out.read_bytes()  # no lines and paths of the code


@pytest.mark.parametrize("to", ["hf", "safetensors", "pyth"])
def test_weights_as_convert_writes_them(finished: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"m.{to}"
    assert command.main([str(finished), str(out), "--to", to]) == 0
    path, scores = next(iter(expected(finished).items()))
    best = load(out, precision="fp32", views=Views(num_clips=2, num_crops=3)).score([path]).scores[0]
    np.testing.assert_allclose(best, scores, atol=1e-4)


def said(words: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert command.main([*map(str, words)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_what_cannot_be_exported_is_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.pt2").write_text("mine")
    assert "is there already. Nothing was written" in said([finished, tmp_path / "there.pt2", "--to", "pt2"], capsys)
    assert "--int8 goes with --to onnx" in said([finished, tmp_path / "m", "--to", "pt2", "--int8"], capsys)
    (tmp_path / "bad.mp4").write_text("no video")
    words = [finished, tmp_path / "m.pt2", "--to", "pt2", "--clips", tmp_path / "bad.mp4"]
    assert "none of the 1 clips to compare on can be read" in said(words, capsys)
    assert not (tmp_path / "m.pt2").exists()


def test_files_that_are_no_exported_model(tmp_path: Path) -> None:
    needs_onnx()
    import onnx

    from timesformer import runtime

    with pytest.raises(CheckpointError, match="no such file"):
        runtime.load(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match="is not an ONNX file that onnxruntime can load"):
        runtime.load(write_video(tmp_path / "a.mp4"))
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="was not written by `timesformer export`"):
        runtime.load(tmp_path / "other.onnx")
