"""An honest run passes; an edited metric, weight, label or list is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from tests.engine.test_resume import EVERYTHING_RANDOM
from timesformer.cli import verify
from timesformer.datasets.gestures.dataset import Settings, render_dataset
from timesformer.studies import differences
from timesformer.studies import verify as studies
from timesformer.utils.files import json_lines
from tools import run_net

CFG = Path(__file__).parents[2] / "configs/Gestures/LightTimeSformer_demo.yaml"


@pytest.fixture(scope="session")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, val.csv and test.csv of generated gestures."""
    folder = tmp_path_factory.mktemp("lists")
    render_dataset(folder, Settings(num_subjects=(1, 1, 1), frame_size=(48, 48)), processes=1)
    return folder


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory, lists: Path, tiny: list[str]) -> Path:  # noqa: F811
    """A run of three epochs that is left as it is."""
    folder = tmp_path_factory.mktemp("runs") / "honest"
    settings = {
        **{
            "TRAIN.DATASET": "kinetics",
            "TEST.DATASET": "kinetics",
            "DATA.PATH_TO_DATA_DIR": lists,
            "OUTPUT_DIR": folder,
        },
        **{
            "SOLVER.MAX_EPOCH": 3,
            "GLOBAL_BATCH_SIZE": 4,
            "TRAIN.BATCH_SIZE": 4,
            "TENSORBOARD.ENABLE": False,
            "TEST.NUM_SPATIAL_CROPS": 1,
        },
    }
    words = [str(word) for pair in settings.items() for word in pair]
    assert run_net.main(["--cfg", str(CFG), *tiny, *words]) == 0
    return folder


@pytest.fixture
def copy(honest: Path, tmp_path: Path) -> Path:
    """The same run, to be edited."""
    return shutil.copytree(honest, tmp_path / "run")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1))


def edit_metric(run: Path) -> None:
    top1 = json.loads((run / "results.json").read_text())["top1"]
    replace(run / "results.json", f'"top1": {top1}', f'"top1": {top1 + 1}')


def edit_class(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["per_class"]["3"] = 55.0
    (run / "results.json").write_text(json.dumps(results))


def edit_label(run: Path) -> None:
    lines = (run / "predictions.csv").read_text().splitlines()
    path, label, rest = lines[4].split(",", 2)
    lines[4] = f"{path},{(int(label) + 1) % 12},{rest}"
    (run / "predictions.csv").write_text("\n".join(lines) + "\n")


def edit_score(run: Path) -> None:
    """The scores of a row and its predicted class."""
    lines = (run / "predictions.csv").read_text().splitlines()
    path, label, _, *scores = lines[4].split(",")
    scores[int(label)] = "0.999"
    lines[4] = ",".join([path, label, label, *scores])
    (run / "predictions.csv").write_text("\n".join(lines) + "\n")


def edit_history(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    next(row for row in rows if row["kind"] == "val" and row["epoch"] == 2)["top1"] += 5
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_loss(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    [row for row in rows if row["kind"] == "train"][-1]["loss"] -= 0.01
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_weight(run: Path) -> None:
    path = run / "checkpoints/checkpoint_epoch_00003.pyth"
    content = torch.load(path, weights_only=True)
    content["model_state"]["model.patch_embed.proj.weight"].view(-1)[17] += 1e-6
    torch.save(content, path)


def edit_settings(run: Path) -> None:
    replace(run / "config.yaml", "BASE_LR: 0.001", "BASE_LR: 0.01")


@pytest.mark.parametrize(
    ("edit", "check", "message"),
    [
        (edit_metric, studies.check_metrics, "top1: "),
        (edit_class, studies.check_metrics, "per_class 3: 55.0 in results.json"),
        (edit_label, studies.check_labels, "predictions.csv:5: "),
        (edit_label, studies.check_metrics, "from predictions.csv"),
        (edit_history, studies.check_history, "val of epoch 2: top1 "),
        (edit_metric, studies.check_history, "test at step 9: top1 "),
        (edit_settings, studies.check_settings, "SOLVER.BASE_LR: 0.001 there, 0.01 here"),
        (edit_score, studies.check_test, "a score differs by "),
        (edit_weight, lambda run: studies.check_stretch(run, *stretch(run)), "1 of "),
        (edit_loss, lambda run: studies.check_stretch(run, *stretch(run)), "train at step 9: loss "),
    ],
)
def test_an_edit_is_found_and_named(
    copy: Path, edit: Callable[[Path], None], check: Callable[[studies.RunFolder], differences.Outcome], message: str
) -> None:
    before = studies.RunFolder(copy, [])
    assert studies.check_lists(before)[0] == "ok" and check(before)[0] == "ok"
    edit(copy)
    result, detail = check(before)
    assert result == "DIFFERS" and message in detail


def test_what_another_version_measured_otherwise_or_not_at_all_is_no_edit(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text())
    rows = json_lines(copy / "metrics.jsonl")
    del results["macro_f1"]
    for row in rows:
        row.pop("macro_f1", None)
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (copy / "results.json").write_text(json.dumps(results | {"top1_low": 0.1}))
    run = studies.RunFolder(copy, [])
    assert studies.check_lists(run)[0] == "ok"
    assert studies.check_metrics(run)[0] == studies.check_stretch(run, *stretch(run))[0] == "DIFFERS"
    versions = json.loads((copy / "versions.json").read_text())
    (copy / "versions.json").write_text(json.dumps(versions | {"git": {"revision": "0123456789", "dirty": False}}))
    result, detail = studies.check_metrics(run)
    assert result == "ok" and "; not macro_f1, top1_low: the run is of another version" in detail
    assert studies.check_stretch(run, *stretch(run))[0] == "ok"
    assert "; the run is of timesformer" in studies.check_settings(run)[1]
    (copy / "results.json").write_text(json.dumps(results | {"top1_low": 0.1, "top1": 99.0}))
    assert studies.check_metrics(run)[0] == "DIFFERS"


@pytest.mark.parametrize("metric", ["loss", "macro_f1", "top1"])
def test_the_best_validation_is_that_of_the_deciding_metric(copy: Path, metric: str) -> None:
    """Of a loss the lowest; the checkpoints hold its negative."""
    rows = [row for row in json_lines(copy / "metrics.jsonl") if row["kind"] == "val"]
    replace(copy / "config.yaml", "BEST_METRIC: auto", f"BEST_METRIC: {metric}")
    for path in (copy / "checkpoints").glob("checkpoint_epoch*"):
        content = torch.load(path, weights_only=True)
        earlier = [row[metric] for row in rows if row["epoch"] <= content["epoch"] + 1]
        content["best_score"] = -min(earlier) if metric == "loss" else max(earlier)
        torch.save(content, path)
    run = studies.RunFolder(copy, [])
    assert studies.check_history(run)[0] == "ok"
    replace(
        copy / "config.yaml", f"BEST_METRIC: {metric}", "BEST_METRIC: top1" if metric == "loss" else "BEST_METRIC: loss"
    )
    result, detail = studies.check_history(run)
    assert result == "DIFFERS" and "best validation: " in detail


def stretch(run: studies.RunFolder) -> tuple[Path, Path]:
    files = [run.folder / f"checkpoints/checkpoint_epoch_0000{epoch}.pyth" for epoch in (2, 3)]
    return files[0], files[1]


def test_an_honest_run_passes_wherever_it_is(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert verify.main([str(copy)]) == 0
    out = capsys.readouterr().out
    for what in ("settings", "lists", "labels", "metrics", "history", "test", "stretch"):
        assert f"\n{what:<9} ok" in f"\n{out}"
    assert "12 predictions to the last digit as a test now" in out and "tensors bit for bit as training now" in out
    assert "everything that was checked holds" in out
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files  # nothing was touched


@pytest.mark.slow
@pytest.mark.parametrize("edit", [edit_metric, edit_label, edit_score, edit_history, edit_loss, edit_weight])
def test_the_command_finds_each_edit(
    copy: Path, edit: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copy)
    assert verify.main([str(copy)]) == 1
    captured = capsys.readouterr()
    assert "DIFFERS" in captured.out and "fail: " in captured.err


def test_a_changed_list_is_found(copy: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what depends on it is not computed with another list."""
    own = shutil.copytree(lists, tmp_path / "own")
    replace(own / "test.csv", " 3\n", " 4\n")
    assert verify.main([str(copy), "DATA.PATH_TO_DATA_DIR", str(own)]) == 1
    captured = capsys.readouterr()
    assert "the test list: 12 videos (" in captured.out and "labels    DIFFERS" in captured.out
    assert captured.out.count("not checked      the lists are not those of the run") == 2
    assert "lists, labels" in captured.err


def test_what_is_not_there_is_said(
    copy: Path, honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main([str(tmp_path / "nothing")]) == 1
    assert "no run there (no config.yaml)" in capsys.readouterr().err
    for name in ("checkpoint_epoch_00001.pyth", "checkpoint_epoch_00002.pyth", "checkpoint_best.pyth"):
        (copy / "checkpoints" / name).unlink()
    (copy / "results.json").unlink()
    (copy / "metrics.jsonl").unlink()
    assert verify.main([str(copy)]) == 1  # the validations are gone
    assert "val of epoch 3: top1 missing in metrics.jsonl" in capsys.readouterr().out
    shutil.copy(honest / "metrics.jsonl", copy)
    assert verify.main([str(copy)]) == 0
    out = capsys.readouterr().out
    assert (
        "stretch   not checked      1 checkpoint kept, it takes two; --stretches 2 trains from the start" in out
        and "test      not checked      the run was" in out
    )
    shutil.rmtree(copy / "checkpoints")
    assert verify.main([str(copy), "DATA.PATH_TO_DATA_DIR", str(tmp_path / "nothing")]) == 1
    out = capsys.readouterr().out
    assert "lists     FAILED" in out and "0 checkpoints kept, it takes two\n" in out


@pytest.mark.slow
def test_stretches_inside_epochs_and_from_the_start(
    tmp_path: Path,
    tiny: list[str],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With an average of the weights, dropout, mixing and every augmentation."""
    settings = EVERYTHING_RANDOM | {"TRAIN.CHECKPOINT_KEEP": 0, "OUTPUT_DIR": tmp_path / "run"}
    words = [str(word) for pair in settings.items() for word in pair]
    assert run_net.main(["--cfg", str(CFG), *tiny, *words]) == 0
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("checkpoint_epoch*"))
    assert len(kept) == 4 and kept[0] == "checkpoint_epoch_00000_step_000004.pyth"
    capsys.readouterr()
    assert verify.main([str(tmp_path / "run"), "--stretches", "9"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stretch   ok")]
    assert len(lines) == 4 and f"the start to {kept[0]}" in lines[-1]
