"""The command line: help, exit status, and messages without a traceback."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from timesformer.cli import train as run_net
from timesformer.config.defaults import KEYS
from timesformer.config.load import LoadedConfig

ROOT = Path(__file__).parents[2]
KINETICS = str(ROOT / "configs/Kinetics/TimeSformer_divST_8x32_224.yaml")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LoadedConfig, bool, str]]:
    """Collects what would be run: configuration, whether only to check, address of the first node."""
    calls: list[tuple[LoadedConfig, bool, str]] = []

    def launch(cfg: object, main: object, loaded: LoadedConfig, only_check: bool, *, init_method: str) -> None:
        calls.append((loaded, only_check, init_method))

    monkeypatch.setattr("timesformer.distributed.launch.launch", launch)
    return calls


def test_help_explains_options_and_every_key_with_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_net.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--cfg", "--check", "--num_shards", "--shard_id", "--init_method"))
    assert all(key.name in text and key.meaning in " ".join(text.split()) for key in KEYS)
    assert "one of sgd, adam, adamw" in text and "from 0 to 0.99" in text
    unwrapped = re.sub(r"\n {5,}", " ", text)
    lines = {words[0]: line for line in unwrapped.splitlines() if (words := line.split())}
    assert all(model in lines["MODEL.MODEL_NAME"] for model in ("LightTimeSformer", "TimeSformer", "r3d_18"))
    assert all(dataset in lines["TRAIN.DATASET"] for dataset in ("kinetics", "ssv2", "muwiges", "folder"))


def test_as_a_program_all_problems_go_to_stderr_with_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["SOLVER.BASE_LRR", "0.1", "DATA.NUM_FRAME", "8", "PRECISION", "fp17", "OUTPUT_DIR", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["run_net.py", "--cfg", KINETICS, *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "tools/run_net.py"), run_name="__main__")
    assert stopped.value.code == 1
    told = capsys.readouterr()
    assert told.out == "" and "Traceback" not in told.err
    assert "error: 3 problems in the configuration:" in told.err
    assert "command line: SOLVER.BASE_LRR is not a key; did you mean SOLVER.BASE_LR?" in told.err
    assert "did you mean DATA.NUM_FRAMES?" in told.err and "Did you mean fp16?" in told.err
    assert not (tmp_path / "out").exists()


def test_options_and_overrides_reach_the_run(launched: list[tuple[LoadedConfig, bool, str]]) -> None:
    options = ["--num_shards", "4", "--shard_id", "2", "--init_method", "tcp://node0:29500", "--check"]
    words = ["SOLVER.BASE_LR", "0.5", "GLOBAL_BATCH_SIZE", "64"]
    for line in ([*options, *words], [*words, *options], [*words[:2], *options, *words[2:]]):
        assert run_net.main(["--cfg", KINETICS, *line]) == 0
    assert run_net.main(["--cfg", KINETICS]) == 0
    *with_options, (plain, only_check, _) = launched
    for loaded, checked, address in with_options:
        assert (loaded.cfg.NUM_SHARDS, loaded.cfg.SHARD_ID, loaded.cfg.SOLVER.BASE_LR) == (4, 2, 0.5)
        assert (checked, address) == (True, "tcp://node0:29500")
    assert (plain.cfg.NUM_SHARDS, plain.cfg.SHARD_ID, only_check) == (1, 0, False)


def test_more_gpus_than_there_are_prints_the_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for there, mend in ((0, "NUM_GPUS 0 to run on the CPU"), (2, "NUM_GPUS 2")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        assert run_net.main(["--cfg", KINETICS, "OUTPUT_DIR", str(tmp_path / "out")]) == 1
        message = capsys.readouterr().err
        assert f"NUM_GPUS is 8, but this machine shows {there} GPU(s). Add: {mend}" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_shards", "2", "GLOBAL_BATCH_SIZE", "128"], "--init_method tcp://node0:29500, and its own --shard_id"),
        (["--shard_id", "1"], "SHARD_ID 1 must be below NUM_SHARDS 1. Type SHARD_ID 0 or NUM_SHARDS 2"),
        (["SOLVER.BASE_LR", "--check"], "'SOLVER.BASE_LR' has no value"),
        (["--cfg", "gone.yaml"], "cannot read config file 'gone.yaml': No such file or directory"),
    ],
)
def test_what_does_not_work_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_net.main([*words, "NUM_GPUS", "0", "OUTPUT_DIR", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_arguments_at_all_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert run_net.main([]) == 1
    message = capsys.readouterr().err
    assert "DATA.PATH_TO_DATA_DIR must be the folder that holds train.csv: it is not set" in message


def test_a_run_that_is_interrupted_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("timesformer.distributed.launch.launch", interrupted)
    assert run_net.main([]) == 130
    assert "stopped" in capsys.readouterr().err
