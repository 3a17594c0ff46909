"""Whatever a file of weights holds: it loads and converts, or one error says why; never a traceback, never half."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.small_models import DIVIDED, JOINT, SMALL, SPACE, copy_of, equal
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import CheckpointError
from timesformer.weights.hugging_face import to_their_names
from timesformer.weights.layouts import read_weights
from timesformer.weights.load import load_weights
from timesformer.weights.save import save_weights

MODELS = {kind: TimeSformer(**SMALL, attention_type=kind) for kind in (DIVIDED, JOINT, SPACE)}
TYPES = (torch.float32, torch.float16, torch.int64, torch.int8, torch.bool, torch.complex64, torch.float8_e5m2)
IMPORTANT = (
    *("pos_embed", "cls_token", "time_embed", "patch_embed.proj.weight", "head.weight", "head.bias"),
    *("blocks.0.mlp.fc1.weight", "blocks.0.attn.qkv.weight", "blocks.0.temporal_fc.weight", "norm.bias"),
)
NAMES = st.one_of(st.sampled_from(IMPORTANT), st.text(max_size=8), st.integers(), st.tuples(st.integers()), st.none())
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 2000), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
BESIDE = ("format", "num_heads", "class_names", "preprocessing", "is_ema", "cfg", "ema_state", "epoch")


@st.composite
def odd_tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 5, 9, 17, 24]), max_size=5).filter(lambda s: math.prod(s) < 5000))
    kind, value = draw(st.sampled_from(TYPES)), draw(st.sampled_from([0.0, 1.0, math.nan, math.inf]))
    return torch.full(shape, value if kind.is_floating_point else 1).to(kind)


@st.composite
def odd_files(draw: st.DrawFn) -> Any:
    state: dict[Any, Any] = dict(MODELS[draw(st.sampled_from([DIVIDED, JOINT, SPACE]))].model.state_dict())
    for name in draw(st.lists(st.sampled_from(IMPORTANT), max_size=2)):
        state.pop(name, None)
    state |= draw(st.dictionaries(NAMES, odd_tensors(), max_size=2))
    form = draw(st.sampled_from(["bare", "model.", "Hugging Face", "wrapped"]))
    if form == "model.":
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    if form == "Hugging Face" and state.keys() <= MODELS[DIVIDED].model.state_dict().keys():
        state = to_their_names(state)
    if form == "wrapped":
        return {"model_state": state} | draw(st.dictionaries(st.sampled_from(BESIDE), PLAIN, max_size=3))
    return state


@settings(max_examples=250, deadline=None)
@given(file=odd_files(), kind=st.sampled_from([DIVIDED, SPACE]), how=st.sampled_from(["", "complete", "allow_partial"]))
def test_an_odd_file_loads_or_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, file: Any, kind: str, how: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.pyth"
    torch.save(file, path)
    model = TimeSformer(**SMALL, attention_type=kind)
    before = copy_of(model)
    try:
        load_weights(model, path, class_names=list("abcde"), **({how: True} if how else {}))
    except CheckpointError:
        assert equal(model, before)
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


@settings(max_examples=150, deadline=None)
@given(file=odd_files(), to=st.sampled_from(["hf", "pyth", "safetensors"]))
def test_an_odd_file_converts_or_is_an_error(tmp_path_factory: pytest.TempPathFactory, file: Any, to: str) -> None:
    folder = tmp_path_factory.mktemp("odd")
    torch.save(file, folder / "in.pyth")
    try:
        save_weights(read_weights(folder / "in.pyth"), folder / "out", to=to)
        read_weights(folder / "out")
    except CheckpointError:
        pass


@pytest.mark.parametrize(
    "change, named",
    [
        ({7: torch.zeros(3)}, "under 7, which is no name"),
        ({"head.bias": torch.tensor(1.0)}, "head.bias scalar, the model has 5"),
        ({"pos_embed": torch.zeros(24)}, "pos_embed 24, the model has 1x17x24"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(24)}, "blocks.0.mlp.fc1.weight 24, the model has 96x24"),
    ],
)
def test_odd_tensors_are_named(tmp_path_factory: pytest.TempPathFactory, change: dict[Any, Tensor], named: str) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.pyth"
    torch.save(dict(MODELS[DIVIDED].model.state_dict()) | change, path)
    with pytest.raises(CheckpointError) as error:
        load_weights(TimeSformer(**SMALL), path, complete=True)
    assert named in str(error.value)
