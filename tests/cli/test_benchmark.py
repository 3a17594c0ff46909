"""The command benchmark: what it prints and writes for a tiny model, and what does not fit into the memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from timesformer.cli import benchmark
from timesformer.cost import benchmark as measured
from timesformer.cost.measure import WINDOW, interleaved, memory_refused, saved_for_backward
from timesformer.engine.setup import load_run_config
from timesformer.models.summary import multiply_accumulates

CPU = torch.device("cpu")
TINY = ["NUM_GPUS", "0", "TIMESFORMER.EMBED_DIM", "24", "TIMESFORMER.DEPTH", "2", "TIMESFORMER.NUM_HEADS", "2"]
TINY += ["DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32", "DATA.NUM_FRAMES", "2", "MODEL.NUM_CLASSES", "12"]
TINY += ["TIMESFORMER.PATCH_SIZE", "8", "PRECISION", "fp32", "DATA.TRAIN_JITTER_SCALES", "[32,40]"]


def call(tmp_path: Path, *words: str) -> dict:
    """Runs the command and returns its JSON."""
    assert benchmark.main([*words, "--clips", "2", "--repeats", "2", "--out", str(tmp_path), *TINY]) == 0
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    return json.loads((tmp_path / "benchmark.json").read_text())


def test_a_sweep_over_frames_sizes_and_schemes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemes = ("divided_space_time", "joint_space_time")
    content = call(tmp_path, "--frames", "2", "4", "--sizes", "32", "48", "--schemes", *schemes)
    rows = content["rows"]
    assert len(rows) == 8 and {row["pass"] for row in rows} == {"forward"}
    assert all(row["clips_per_sec"] > 0 and row["bytes"] > 0 and 0 < row["share"] for row in rows)
    printed = capsys.readouterr().out
    assert "\nmodel: timesformer, pass: forward\n" in printed
    assert re.search(r"^divided_space_time  0\.0265M  4x48x48  0\.004093 G ", printed, re.MULTILINE)
    assert "timesformer, divided_space_time, 32 x 32, forward: 2x the frames" in printed
    divided = [row["executed"] for row in rows if row["attention"] == schemes[0] and row["height"] == 32]
    assert divided[1] / divided[0] == pytest.approx(2, rel=0.1)  # grows with the frames


def test_training_against_hugging_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = call(tmp_path, "--train", "--vs", "transformers")["rows"]
    assert [(row["model"], row["pass"]) for row in rows] == [
        (model, name) for model in ("timesformer", "transformers") for name in ("forward", "training")
    ]
    ours, theirs = rows[0], rows[2]
    assert ours["parameters"] == theirs["parameters"] and theirs["executed"] == ours["published"]
    printed = capsys.readouterr().out
    assert "matrix rate" in printed and "\nattention: divided_space_time, params: 0.026M, input: 2x32x32\n" in printed
    assert re.search(r"^transformers  training  ", printed, re.MULTILINE)


def test_what_does_not_fit_is_a_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = measured.Workload.forward

    def small_memory(self: measured.Workload) -> None:
        if self.shape[1] > 2:
            raise torch.OutOfMemoryError("no")
        forward(self)

    monkeypatch.setattr(measured.Workload, "forward", small_memory)
    small, large = call(tmp_path, "--frames", "2", "4")["rows"]
    assert small["clips_per_sec"] > 0 and large["clips_per_sec"] is None
    assert " out of memory" in capsys.readouterr().out


def test_keys_may_stand_after_lists_of_numbers() -> None:
    words = benchmark.overrides_first(["--frames", "8", "16", "DATA.NUM_FRAME", "3", "NUM_GPUS", "0", "--train"])
    assert words == ["DATA.NUM_FRAME", "3", "NUM_GPUS", "0", "--frames", "8", "16", "--train"]


def test_loading_of_data(tmp_path: Path) -> None:
    """The demo's videos are rendered for it."""
    gestures = ["TRAIN.DATASET", "gestures", "TEST.DATASET", "gestures", "GESTURES.NUM_SUBJECTS", "[2,1,1]"]
    gestures += ["DATA.PATH_TO_DATA_DIR", str(tmp_path), "TRAIN.BATCH_SIZE", "4", "DATA_LOADER.NUM_WORKERS", "0"]
    assert call(tmp_path / "out", "--data", *gestures)["loading_clips_per_sec"] > 0


def test_what_is_kept_for_the_backward_pass() -> None:
    """A product of x with itself keeps x once, a linear layer keeps its input but not its weight."""
    model = torch.nn.Linear(4, 4)
    x = torch.randn(8, 4, requires_grad=True)
    assert saved_for_backward(lambda: (x * x).sum(), model) == 8 * 4 * 4
    assert saved_for_backward(lambda: model(x), model) == 8 * 4 * 4


def test_a_model_is_without_values_until_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "check_compiler", lambda device: None)
    workload = measured.Workload(load_run_config(None, [*TINY, "MODEL.COMPILE", "True"]).cfg, "timesformer", clips=2)
    assert workload.executed("training") > 2 * workload.executed("forward")
    assert all(parameter.is_meta for parameter in workload.model.parameters())
    workload.allocate()
    assert not any(parameter.is_meta for parameter in workload.model.parameters())
    assert all(block._compiled_call_impl is not None for block in workload.model.blocks)


def test_work_is_counted_without_running() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    assert multiply_accumulates(model, (3, 1, 2, 2)) == 60
    assert multiply_accumulates(model, (3, 1, 2, 2), clips=4, backward=True) == 2 * 4 * 60  # no gradient of the clips


def test_works_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("wait"))
    interleaved({"a": lambda: order.append("a")}, device=torch.device("cuda"), repeats=2)
    assert order == ["wait", *"a" * WINDOW, "wait"] * 2  # a GPU gets many runs at a time
    order.clear()
    seconds = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, device=CPU, repeats=3)
    assert order == list("ababab") and [len(values) for values in seconds.values()] == [3, 3]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux refuses")
def test_a_cpu_refuses_too_much_memory() -> None:
    with pytest.raises(MemoryError), memory_refused(CPU):
        torch.empty(2**46, dtype=torch.uint8)
    torch.ones(10)
