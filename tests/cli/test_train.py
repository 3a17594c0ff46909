"""The command line: help, exit status, and messages without a traceback."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from timesformer.cli import train
from timesformer.cli.main import main
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


def test_help_explains_the_options_and_where_keys_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--cfg", "--check", "--num_shards", "--shard_id", "--init_method"))
    assert "`timesformer config [WORD]` explains them" in text


def test_as_a_program_all_problems_go_to_stderr_with_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["SOLVER.BASE_LRR", "0.1", "DATA.NUM_FRAME", "8", "PRECISION", "fp17", "OUTPUT_DIR", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["run_net.py", "--cfg", KINETICS, *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "tools/run_net.py"), run_name="__main__")
    assert stopped.value.code == 1
    message = capsys.readouterr()
    assert message.out == "" and "Traceback" not in message.err
    assert "error: 3 problems in the configuration:" in message.err
    assert "command line: SOLVER.BASE_LRR is not a key; did you mean SOLVER.BASE_LR?" in message.err
    assert "did you mean DATA.NUM_FRAMES?" in message.err and "Did you mean fp16?" in message.err
    assert not (tmp_path / "out").exists()


def test_options_and_overrides_reach_the_run(launched: list[tuple[LoadedConfig, bool, str]]) -> None:
    options = ["--num_shards", "4", "--shard_id", "2", "--init_method", "tcp://node0:29500", "--check"]
    words = ["SOLVER.BASE_LR", "0.5", "GLOBAL_BATCH_SIZE", "64"]
    for line in ([*options, *words], [*words, *options], [*words[:2], *options, *words[2:]]):
        assert train.main(["--cfg", KINETICS, *line]) == 0
    assert train.main(["--cfg", KINETICS]) == 0
    *with_options, (plain, only_check, _) = launched
    for loaded, checked, address in with_options:
        assert (loaded.cfg.NUM_SHARDS, loaded.cfg.SHARD_ID, loaded.cfg.SOLVER.BASE_LR) == (4, 2, 0.5)
        assert (checked, address) == (True, "tcp://node0:29500")
    assert (plain.cfg.NUM_SHARDS, plain.cfg.SHARD_ID, only_check) == (1, 0, False)


@pytest.mark.parametrize(("command", "trains", "checks"), [("test", False, False), ("check", True, True)])
def test_test_and_check_are_train_with_a_setting(
    launched: list[tuple[LoadedConfig, bool, str]], command: str, trains: bool, checks: bool
) -> None:
    assert main([command, "--cfg", KINETICS, "NUM_SHARDS", "2", "--init_method", "tcp://node0:29500"]) == 0
    ((loaded, only_check, address),) = launched
    assert (loaded.cfg.TRAIN.ENABLE, loaded.cfg.NUM_SHARDS) == (trains, 2)
    assert (only_check, address) == (checks, "tcp://node0:29500")


def test_a_file_without_its_option_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "preview", "benchmark"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "configs/some.yaml"])
        assert stopped.value.code == 2
        assert "a configuration file goes after --cfg: --cfg configs/some.yaml" in capsys.readouterr().err


def test_more_gpus_than_there_are_prints_the_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for there, mend in ((0, "NUM_GPUS 0 to run on the CPU"), (2, "NUM_GPUS 2")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        assert train.main(["--cfg", KINETICS, "OUTPUT_DIR", str(tmp_path / "out")]) == 1
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
    assert train.main([*words, "NUM_GPUS", "0", "OUTPUT_DIR", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_arguments_at_all_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert train.main([]) == 1
    message = capsys.readouterr().err
    assert "DATA.PATH_TO_DATA_DIR must be the folder that holds train.csv: it is not set" in message


def test_a_run_that_is_interrupted_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("timesformer.distributed.launch.launch", interrupted)
    assert train.main([]) == 130
    assert "stopped" in capsys.readouterr().err
