"""Files and words become one configuration; all problems are reported together, each with its location."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fvcore.common.config import CfgNode
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from timesformer.config import get_cfg, load_config, unread_keys
from timesformer.config.defaults import KEYS, Key
from timesformer.utils.errors import ConfigError, UserError


def write(folder: Path, text: str, name: str = "run.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def problems(path: str | None, *words: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, words, **options)
    return str(caught.value)


def test_defaults_alone_are_valid_and_frozen() -> None:
    loaded = load_config(None)
    assert loaded.cfg == get_cfg() and loaded.cfg.is_frozen()
    assert loaded.set_by_user == {} and loaded.advice == []


def test_bases_then_file_then_words(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    write(tmp_path, "SOLVER: {BASE_LR: 1, MAX_EPOCH: 3}\nRNG_SEED: 1\nLOG_PERIOD: 7", "bases/a.yaml")
    write(tmp_path, "RNG_SEED: 2\nSOLVER:\n  MAX_EPOCH: 4", "bases/b.yaml")
    path = write(tmp_path, "_BASE_: [bases/a.yaml, bases/b.yaml]\nSOLVER:\n  BASE_LR: 2")
    loaded = load_config(path, ["DATA.NUM_FRAMES", "16"])
    cfg = loaded.cfg
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.RNG_SEED, cfg.LOG_PERIOD) == (2.0, 4, 2, 7)
    assert loaded.set_by_user == {
        "SOLVER.BASE_LR": f"{path}:3",
        "SOLVER.MAX_EPOCH": f"{tmp_path}/bases/b.yaml:3",
        "RNG_SEED": f"{tmp_path}/bases/b.yaml:1",
        "LOG_PERIOD": f"{tmp_path}/bases/a.yaml:3",
        "DATA.NUM_FRAMES": "command line",
    }


def test_base_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "RNG_SEED: 5", "home.yaml")
    assert load_config(write(tmp_path, "_BASE_: ~/home.yaml")).cfg.RNG_SEED == 5


def test_circular_and_missing_bases_name_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "_BASE_: b.yaml", "a.yaml")
    write(tmp_path, "RNG_SEED: 1\n_BASE_: [a.yaml, gone.yaml]", "b.yaml")
    text = problems(path)
    assert "b.yaml:2: _BASE_ goes round in a circle: a.yaml -> b.yaml -> a.yaml" in text
    assert "b.yaml:2: cannot read config file" in text and "gone.yaml" in text
    assert "must be a path or a list of paths" in problems(write(tmp_path, "_BASE_: {A: 1}"))


def test_a_base_of_the_package_is_found_by_its_name_unless_a_file_lies_there(tmp_path: Path) -> None:
    path = write(tmp_path, "_BASE_: Own/gestures_cpu\nRNG_SEED: 7")
    loaded = load_config(path)
    assert (loaded.cfg.RNG_SEED, loaded.cfg.MODEL.WEIGHTS) == (7, "gestures")
    (tmp_path / "Own").mkdir()
    write(tmp_path / "Own", "RNG_SEED: 8", "gestures_cpu")
    assert load_config(path).cfg.MODEL.WEIGHTS == ""
    assert "gone.yaml" in problems(write(tmp_path, "_BASE_: Own/gone.yaml"))


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("SOLVER.BASE_LR", "1e-4", 1e-4),
        ("SOLVER.BASE_LR", "1", 1.0),
        ("TRAIN.AUTO_RESUME", "True", True),
        ("SOLVER.LRS", "[1, 0.1]", [1.0, 0.1]),
        ("DATA.TRAIN_CROP_SIZE", "(224,224)", [224, 224]),
        ("DATA.TRAIN_CROP_SIZE", "224", 224),
        ("DATA.SAMPLING_RATE", "auto", "auto"),
        ("DATA.PATH_TO_DATA_DIR", "C:\\clips: all, [1]", "C:\\clips: all, [1]"),
        ("OUTPUT_DIR", "2026", "2026"),
        ("OUTPUT_DIR", " /out ", "/out"),
        ("DATA.PATH_LABEL_SEPARATOR", ",", ","),
        ("DATA.PATH_LABEL_SEPARATOR", "' '", " "),
        ("DATA.FLIP_LABEL_MAP", "[[2,3],[4,5]]", [[2, 3], [4, 5]]),
        ("DATA.FLIP_LABEL_MAP", "[[left, turn right], [2, '3']]", [["left", "turn right"], [2, "3"]]),
        ("SOLVER.BASE_LR", 0.5, 0.5),
    ],
)
def test_words_are_read_as_yaml(name: str, word: Any, value: Any) -> None:
    got: Any = load_config(None, [name, word]).cfg
    for part in name.split("."):
        got = got[part]
    assert got == value and type(got) is type(value)


def test_yaml_text_keeps_numbers_and_dates_as_written(tmp_path: Path) -> None:
    path = write(tmp_path, "OUTPUT_DIR: 2026-11-23\nDATA:\n  PATH_TO_DATA_DIR: ' /clips/'\n  PATH_PREFIX: 007")
    cfg = load_config(path).cfg
    assert (cfg.OUTPUT_DIR, cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX) == (
        "2026-11-23", "/clips/", "007",
    )  # fmt: skip


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "TRAIN:\n  BATCH_SIZ: 8\n  ENABLE: 1\nDATA:\n  NUM_FRAMES: true\n  MEAN: [0.4]\n  CROP_MODE: ful\n"
        "SOLVER: {MOMENTUM: 2, BASE_LR: fast, STEPS: 3}\nTEST: 5\nRNG_SEED: 1\nRNG_SEED: 2\nMIXUP:\n",
    )
    text = problems(path, "NUM_SHARDS", "two", "num_gpus", "1")
    expected = [
        f"{path}:2: TRAIN.BATCH_SIZ is not a key; did you mean TRAIN.BATCH_SIZE?",
        f"{path}:3: TRAIN.ENABLE: found 1; allowed: True or False.",
        f"{path}:5: DATA.NUM_FRAMES: found True; allowed: a whole number, from 1 to ",
        f"{path}:6: DATA.MEAN: found [0.4]; allowed: a list of 3 numbers, from 0 to 1, such as [0.45,0.45,0.45].",
        f"{path}:7: DATA.CROP_MODE: found 'ful'; allowed: one of crop, full. Did you mean full?",
        f"{path}:8: SOLVER.MOMENTUM: found 2; allowed: a number, from 0 to 1.",
        f"{path}:8: SOLVER.BASE_LR: found 'fast'; allowed: a number, from 0 to 1,000,000.",
        f"{path}:8: SOLVER.STEPS: found 3; allowed: a list of whole numbers, from 0 to 1,000,000.",
        f"{path}:9: TEST is a section; its keys are TEST.BASELINES,",
        f"{path}:11: RNG_SEED is given twice, first in {path}:10; keep one.",
        "command line: NUM_SHARDS: found 'two'; allowed: a whole number, from 1 to ",
        "command line: num_gpus is not a key; did you mean NUM_GPUS?",
    ]  # fmt: skip
    assert [line for line in expected if line not in text] == []
    assert text.startswith(f"{len(expected)} problems") and text.count("\n") == len(expected)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("SOLVER.NUM_FRAMES", "DATA.NUM_FRAMES"),
        ("DATA.NUM_FRAME", "DATA.NUM_FRAMES"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("TIMESFORMER.ATENTION_TYPE", "TIMESFORMER.ATTENTION_TYPE"),
    ],
)
def test_did_you_mean(wrong: str, right: str) -> None:
    assert f"{wrong} is not a key; did you mean {right}?" in problems(None, wrong, "1")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["DATA.NUM_FRAMES"], "'DATA.NUM_FRAMES' has no value"),
        (["DATA.NUM_FRAMES", "SOLVER.BASE_LR", "0.1"], "'DATA.NUM_FRAMES' has no value"),
        (["RNG_SEED", "1", "SOLVER.BASE_LR"], "'SOLVER.BASE_LR' has no value"),
        (["8", "RNG_SEED", "1"], "'8' has no KEY"),
    ],
)
def test_words_that_are_no_pairs(words: list[str], hint: str) -> None:
    assert hint in problems(None, *words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN:\n\tENABLE: 1", "run.yaml:2: not valid YAML"),
        ("A: [1\nB: 2", "run.yaml:2: not valid YAML"),
        ("- 1", "run.yaml:1: the file must consist of KEY: value lines"),
        ("RNG_SEED: !!python/name:os.system", "run.yaml:1: RNG_SEED: could not determine a constructor for the tag"),
        ("RNG_SEED: 2026-13-45", "run.yaml:1: RNG_SEED: month must be in 1..12"),
        ("RNG_SEED:", "run.yaml:1: RNG_SEED: found None"),
        ("RNG_SEED: .nan", "run.yaml:1: RNG_SEED: found nan"),
        ("SOLVER: {BASE_LR: .inf}", "run.yaml:1: SOLVER.BASE_LR: found inf"),
        ("DATA: {FLIP_LABEL_MAP: [[1, 2, 3]]}", "run.yaml:1: DATA.FLIP_LABEL_MAP: found [[1, 2, 3]]"),
        (
            "DATA: {FLIP_LABEL_MAP: [[on, '']]}",
            "allowed: a list of pairs of class names or labels (numbers), from 0 to 1,000,000",
        ),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    assert message in problems(write(tmp_path, text))


def test_missing_file_and_empty_file(tmp_path: Path) -> None:
    assert "No such file" in problems(str(tmp_path / "gone.yaml"))
    assert load_config(write(tmp_path, "# nothing\n")).cfg == get_cfg()


def test_choices_of_the_caller() -> None:
    choices = {"MODEL.MODEL_NAME": ("TimeSformer", "LightTimeSformer"), "TRAIN.DATASET": ("kinetics",)}
    text = problems(None, "MODEL.MODEL_NAME", "LightTimesformer", "TRAIN.DATASET", "kinetic", choices=choices)
    assert "one of TimeSformer, LightTimeSformer. Did you mean LightTimeSformer?" in text
    assert "Did you mean kinetics?" in text


def test_every_end_of_every_range() -> None:
    for key in KEYS:
        for end, step in ((key.low, -1), (key.high, 1)):
            if end is None:
                continue
            beyond: Any = (
                end + step if "int" in key.kind or key.kind in ("size", "size|auto", "pairs") else end + 0.5 * step
            )
            value = {"s": [beyond] * 3, "pairs": [[beyond, 1]]}.get(
                key.kind if key.kind == "pairs" else key.kind[-1] * key.kind.endswith("s"), beyond
            )
            assert f"{key.name}: found {value!r}; allowed: " in problems(None, key.name, value), key


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        (
            "DATA.STD",
            "[1,1]",
            "found [1, 1]; allowed: a list of 3 numbers, from 1e-06 to 1, such as [0.225,0.225,0.225]",
        ),
        ("SOLVER.BETAS", "[0.9]", "allowed: a list of 2 numbers, from 0 to 0.99999, such as [0.9,0.999]"),
        ("DATA.TRAIN_JITTER_SCALES", "[256]", "allowed: a list of 2 whole numbers, from 1 to 8,192, such as [256,320]"),
        ("GESTURES.NUM_SUBJECTS", "[1]", "allowed: a list of 3 whole numbers, from 1 to 100,000, such as [60,10,20]"),
    ],
)
def test_lists_of_another_length(name: str, word: str, message: str) -> None:
    text = problems(None, name, word)
    assert text.startswith("1 problem ") and f"command line: {name}: " in text and message in text


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("(a", "The pattern is not valid: missing ), unterminated subpattern"), ("person", "It means: regular")],
)
def test_patterns_that_are_not_valid_or_have_no_group(pattern: str, reason: str) -> None:
    text = problems(None, "FOLDER.SUBJECT_PATTERN", pattern)
    assert f"found '{pattern}'; allowed: a regular expression with a group, such as 'subject(\\d+)'" in text
    assert reason in text and text.startswith("1 problem ")


def test_cross_checks_of_the_caller() -> None:
    def check(cfg: CfgNode) -> Iterator[str]:
        if cfg.RNG_SEED == 3:
            yield "RNG_SEED 3 is not free"

    text = problems(None, "RNG_SEED", "3", "SOLVER.MOMENTUM", "0", checks=[check])
    assert "RNG_SEED 3 is not free (RNG_SEED is from command line)" in text and "SOLVER.NESTEROV" in text
    assert load_config(None, ["RNG_SEED", "4"], checks=[check]).cfg.RNG_SEED == 4


def test_statistics_of_0_to_255_are_reported_with_what_to_do() -> None:
    text = problems(None, "DATA.MEAN", "[123.7,116.3,103.5]", "DATA.STD", "[58.4,57.1,57.4]")
    assert text.startswith("2 problems") and text.count("values in 0..1 (of 0..255: divide by 255)") == 2


def test_reads_are_tracked_and_dump_clone_pickle_are_not_reads(tmp_path: Path) -> None:
    path = write(tmp_path, "RNG_SEED: 1\nDATA:\n  NUM_FRAMES: 4\nSOLVER:\n  BASE_LR: 0.2")
    loaded = load_config(path, ["LOG_PERIOD", "2"])
    everything = [f"RNG_SEED ({path}:1)", f"DATA.NUM_FRAMES ({path}:3)", f"SOLVER.BASE_LR ({path}:5)"]
    everything.append("LOG_PERIOD (command line)")
    loaded.cfg.dump(), str(loaded.cfg), repr(loaded.cfg), loaded.cfg == get_cfg(), "RNG_SEED" in loaded.cfg
    copy, sent = loaded.cfg.clone(), pickle.loads(pickle.dumps(loaded))
    assert unread_keys(loaded) == unread_keys(sent) == everything

    assert loaded.cfg.DATA.NUM_FRAMES == 4 and loaded.cfg["SOLVER"]["BASE_LR"] == 0.2
    assert unread_keys(loaded) == [everything[0], everything[3]]
    assert copy.RNG_SEED == 1 and unread_keys(loaded) == [everything[0], everything[3]]
    assert unread_keys(sent) == everything and sent.cfg.RNG_SEED == 1 and unread_keys(sent) == everything[1:]


def test_is_still_an_fvcore_cfgnode() -> None:
    cfg = load_config(None).cfg
    assert isinstance(cfg, CfgNode) and isinstance(cfg.DATA, CfgNode)
    with pytest.raises(AttributeError):
        cfg.RNG_SEED = 3
    clone = cfg.clone()
    clone.defrost()
    clone.merge_from_list(["DATA.NUM_FRAMES", 16])
    assert (clone.DATA.NUM_FRAMES, cfg.DATA.NUM_FRAMES) == (16, 8)
    assert isinstance(pickle.loads(pickle.dumps(cfg)).TIMESFORMER, CfgNode)


def test_config_error_is_a_user_error() -> None:
    assert issubclass(ConfigError, UserError)


def test_defect_13_random_flip_is_off_and_its_absence_is_reported(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, "TRAIN:\n  DATASET: kinetics"))
    assert loaded.cfg.DATA.RANDOM_FLIP is False
    assert len([line for line in loaded.advice if line.startswith("DATA.RANDOM_FLIP is not set")]) == 1
    for text in ("DATA:\n  RANDOM_FLIP: True", "DATA:\n  RANDOM_FLIP: False", "TRAIN:\n  ENABLE: False"):
        assert load_config(write(tmp_path, text)).advice == []


def test_defect_13_a_flip_of_mirrored_gestures_is_loud(tmp_path: Path) -> None:
    words = ["TRAIN.DATASET", "gestures", "MODEL.NUM_CLASSES", "12", "DATA.RANDOM_FLIP", "True"]
    assert "mirror partners" in load_config(None, words).advice[0]
    assert load_config(None, [*words, "DATA.FLIP_LABEL_MAP", "[[2,3]]"]).advice == []


def test_dataset_defaults_fill_only_what_is_unset() -> None:
    loaded = load_config(None, ["TRAIN.DATASET", "ssv2"])
    assert (loaded.cfg.DATA.SAMPLING_RATE, loaded.cfg.DATA.CHANNEL_ORDER) == ("auto", "bgr")
    assert len(loaded.advice) == 3 and "DATA.CHANNEL_ORDER" not in loaded.set_by_user
    kept = load_config(None, ["TRAIN.DATASET", "ssv2", "DATA.CHANNEL_ORDER", "rgb"])
    assert kept.cfg.DATA.CHANNEL_ORDER == "rgb" and len(kept.advice) == 2
    only_test = load_config(None, ["TRAIN.ENABLE", "False", "TEST.DATASET", "ssv2"])
    assert only_test.cfg.DATA.CHANNEL_ORDER == "bgr"


def values(key: Key) -> st.SearchStrategy[Any]:
    """Valid values of one key, cross-checks aside."""
    if key.choices:
        return st.sampled_from(key.choices)
    low = 0 if key.low is None else key.low
    whole = st.integers(int(-(-low // 1)), 4096 if key.high is None else int(key.high))
    number = st.floats(low, 1e6 if key.high is None else key.high)
    text = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["C"]), max_size=9)
    return {
        "bool": st.booleans(),
        "int": whole,
        "float": number | whole.filter(lambda n: key.high is None or n <= key.high),
        "str": text.map(str.strip),
        "path": text.map(str.strip).filter(lambda path: "$" not in path and path[:1] != "~"),
        "pattern": text.map(lambda name: f"({re.escape(name)})"),
        "int|auto": st.just("auto") | whole,
        "ints": st.lists(whole, min_size=key.length or 0, max_size=key.length or 3).map(sorted),
        "floats": st.lists(number, min_size=key.length or 0, max_size=key.length or 3),
        "strs": st.lists(text, max_size=3),
        "size": whole | st.tuples(whole, whole).map(list),
        "size|auto": st.just("auto") | whole | st.tuples(whole, whole).map(list),
        "pairs": st.lists(st.tuples(whole, whole | text.map(str.strip).filter(bool)).map(list), max_size=2),
    }[key.kind]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.data(), st.lists(st.integers(0, len(KEYS) - 1), unique=True, max_size=4))
def test_dump_then_load_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory, data: Any, indices: list[int]
) -> None:
    keys = [KEYS[index] for index in indices]
    words = [word for key in keys for word in (key.name, data.draw(values(key), label=key.name))]
    try:
        cfg = load_config(None, words).cfg
    except ConfigError as error:  # a cross-check: the only thing that may refuse values of the right kind
        assert "; allowed: " not in str(error)
        assume(False)
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(cfg.dump(), encoding="utf-8")
    again = load_config(str(path))
    assert again.cfg == cfg and again.cfg.dump() == cfg.dump()
