"""A program that was written for the original TimeSformer gets its configuration."""

from __future__ import annotations

import sys

import pytest

from timesformer.utils.errors import ConfigError
from timesformer.utils.parser import load_config, parse_args

CONFIG = "Kinetics/TimeSformer_divST_8x32_224"


def test_a_program_in_the_style_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["program", "--cfg", CONFIG, "--num_shards", "2", "--shard_id", "1", "DATA.NUM_FRAMES", "4"]
    monkeypatch.setattr(sys, "argv", words)
    args = parse_args()
    assert (args.cfg_file, args.opts, args.num_shards) == (CONFIG, ["DATA.NUM_FRAMES", "4"], 2)
    cfg = load_config(args)
    assert (cfg.DATA.NUM_FRAMES, cfg.NUM_SHARDS, cfg.SHARD_ID) == (4, 2, 1)
    cfg.OUTPUT_DIR = "elsewhere"
    assert cfg.OUTPUT_DIR == "elsewhere"


def test_a_wrong_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--cfg", CONFIG, "DATA.NUM_FRAME", "4"])
    with pytest.raises(ConfigError, match=r"DATA\.NUM_FRAMES"):
        load_config(parse_args())


def test_without_words_it_prints_its_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as stopped:
        parse_args()
    assert stopped.value.code == 0 and "--cfg FILE" in capsys.readouterr().out
