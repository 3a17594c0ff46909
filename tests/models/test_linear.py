"""Linear maps that are folded in pairs, packed for a CPU, and kept while no gradient is required."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.models.small_models import one_after_the_other, small
from timesformer.models import cpu_kernels
from timesformer.models.drop_path import DropPath
from timesformer.models.linear import CachesPrepared, FoldedLinears, Linear
from timesformer.models.summary import without_values
from timesformer.models.vit import ATTENTION_TYPES


def nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FoldedLinears, "forward", one_after_the_other)
    monkeypatch.setattr(CachesPrepared, "_prepared", lambda *_: None)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 7, 24), (2, 3, 4, 5, 24), (0, 24)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_is_the_same_map(bias: bool, shape: tuple[int, ...], gelu: bool) -> None:
    layer, x = Linear(24, 40, bias=bias).eval(), torch.randn(shape)
    wanted = F.linear(x, layer.weight, layer.bias)
    wanted = F.gelu(wanted) if gelu else wanted
    for rows in (x, x.transpose(0, -1).contiguous().transpose(0, -1)):  # in whatever order it lies
        with torch.no_grad():
            torch.testing.assert_close(layer(rows, gelu=gelu), wanted)
        assert layer._cached[2].packed
    torch.testing.assert_close(layer(x, gelu=gelu), wanted)
    assert layer._cached is None  # a pass with gradients forgets


@pytest.mark.parametrize("gelu", [False, True])
def test_packed_under_autocast_and_in_bf16(gelu: bool) -> None:
    layer, x = Linear(64, 64).eval(), torch.randn(40, 64)
    with torch.no_grad():
        wanted = layer(x, gelu=gelu)
        with torch.autocast("cpu", torch.bfloat16):
            got = layer(x, gelu=gelu)
        whole = layer.bfloat16()(x.bfloat16(), gelu=gelu)
    assert got.dtype == whole.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, atol=0.02, rtol=0.02)
    torch.testing.assert_close(whole, got, atol=0.02, rtol=0.02)
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):  # as ever without autocast
        layer(x)


def test_the_counters_count_packed_maps() -> None:
    layer, x = Linear(24, 40).eval(), torch.randn(3, 7, 24)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            layer(x)
        assert layer._cached[2].packed
        assert counter.get_total_flops() == 2 * 3 * 7 * 24 * 40
        assert FlopCountAnalysis(layer, x).total() == 3 * 7 * 24 * 40


def test_a_dropped_row_still_gets_the_second_bias() -> None:
    pair, x = FoldedLinears(), torch.randn(5, 40, 8)
    first, second, dropped = nn.Linear(8, 8), nn.Linear(8, 8), DropPath(0.5).train()
    torch.manual_seed(0)
    folded = pair(x, first, second, dropout=nn.Dropout(0.0), drop_path=dropped)
    torch.manual_seed(0)
    factor = dropped.row_factor(x)
    torch.testing.assert_close(folded, second(factor * first(x)))
    assert (factor == 0).any() and torch.equal(folded[factor[:, 0, 0] == 0][0, 0], second.bias)


def change_in_place(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.model.blocks[0].temporal_fc.weight.mul_(2)
        model.model.blocks[0].attn.qkv.bias.add_(1)
    return model


def change_by_loading(model: nn.Module) -> nn.Module:
    model.load_state_dict({name: tensor * 1.1 for name, tensor in model.state_dict().items()})
    return model


def change_by_a_step(model: nn.Module) -> nn.Module:
    with torch.enable_grad():
        model(torch.randn(2, 3, 4, 32, 32)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return model


def change_by_averaging(model: nn.Module) -> nn.Module:
    own = [tensor.detach() for tensor in model.state_dict().values()]
    torch._foreach_lerp_(own, [tensor + 1 for tensor in own], 0.5)
    return model


def change_by_pointing_elsewhere(model: nn.Module) -> nn.Module:
    model.model.blocks[0].temporal_attn.proj.weight.data = torch.randn(24, 24)
    return model


def change_inside_data(model: nn.Module) -> nn.Module:
    model.model.blocks[0].temporal_fc.weight.data.mul_(2)
    model.model.blocks[1].mlp.fc1.weight.data.mul_(2)
    return model.eval()


CHANGES = [change_in_place, change_by_loading, change_by_a_step, change_by_averaging, change_by_pointing_elsewhere]
CHANGES += [change_inside_data, nn.Module.double, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_cached_follows_the_weights(change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, clips = small().eval(), torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        model(clips)
        model = change(model)
        clips = clips.to(model.model.head.weight.dtype)
        kept = model(clips)
        nothing_cached(monkeypatch)
        torch.testing.assert_close(kept, model(clips), atol=1e-5, rtol=1e-4)


def test_the_product_is_cached_without_gradients_only_and_by_precision() -> None:
    model, clips = small().eval(), torch.randn(2, 3, 4, 32, 32)
    pair = model.model.blocks[0].temporal_folded
    model(clips)
    assert pair._cached is None
    with torch.inference_mode():
        model(clips)
        kept = pair._cached
        model(clips)
        assert pair._cached is kept and kept[2][0].dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            model(clips)
        assert pair._cached[2][0].dtype == torch.bfloat16
    model(clips).sum().backward()
    assert "_folded" not in " ".join(model.state_dict()) and copy.deepcopy(pair)._cached is None
    assert model.train().model.blocks[0].temporal_folded._cached is None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 7, 24), (2, 3, 4, 5, 24)], ids=str)
def test_a_convolution_is_the_same_map_with_the_same_gradients(shape: tuple[int, ...], bias: bool) -> None:
    x, weight = torch.randn(shape).requires_grad_(), torch.randn(40, 24).requires_grad_()
    inputs = [x, weight, *([torch.randn(40).requires_grad_()] if bias else [])]
    grad = torch.randn(*shape[:-1], 40)
    for changed in (lambda *inputs: inputs, lambda x, weight, *bias: (x, (2 * weight.t()).t(), *bias)):
        wanted, got = (form(*changed(*inputs)) for form in (F.linear, cpu_kernels.convolved_linear))
        torch.testing.assert_close(got, wanted)
        gradients = (torch.autograd.grad(result, inputs, grad) for result in (got, wanted))
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_gradients_of_a_convolution_and_theirs() -> None:
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (5, 4), (5,))]
    assert torch.autograd.gradcheck(cpu_kernels.convolved_linear, inputs)
    assert torch.autograd.gradgradcheck(cpu_kernels.convolved_linear, inputs)


@pytest.fixture
def every_map_a_convolution(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every linear map in fp32 that was measured, whatever its size; the list gets an entry for each."""
    called: list[int] = []
    convolved = cpu_kernels.convolved_linear
    monkeypatch.setattr(cpu_kernels, "LEAST_WORK", 0)
    monkeypatch.setattr(cpu_kernels, "_is_faster", lambda *_: True)
    monkeypatch.setattr(cpu_kernels, "convolved_linear", lambda *words: called.append(1) or convolved(*words))
    yield called
    cpu_kernels.use_forms({})


@pytest.mark.parametrize("scheme", ATTENTION_TYPES)
def test_every_linear_map_of_a_training_step_can_be_a_convolution(
    scheme: str, every_map_a_convolution: list[int]
) -> None:
    model = small(scheme).train()
    clips, results = torch.randn(2, *model.input_shape), []
    measured = cpu_kernels.measured_forms(without_values(model), model.input_shape, clips=2, dtype=torch.float32)
    for forms in (None, measured):
        cpu_kernels.use_forms(forms)
        model.zero_grad()
        torch.manual_seed(0)  # of stochastic depth
        model(clips).square().sum().backward()
        results.append([parameter.grad for parameter in model.parameters()])
    assert len(every_map_a_convolution) >= 4 * len(model.blocks)
    for wanted, got in zip(*results, strict=True):
        assert (got - wanted).norm() <= 1e-4 * wanted.norm().clamp(min=1e-3)


def test_where_no_map_is_a_convolution(every_map_a_convolution: list[int]) -> None:
    layer, x = Linear(24, 40), torch.randn(3, 24)
    cpu_kernels.use_forms({cpu_kernels.linear_key(layer.weight.shape, torch.float32, packed=False): True})
    layer(x)
    assert every_map_a_convolution
    every_map_a_convolution.clear()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    layer.bfloat16()(x.bfloat16())
    torch.jit.trace(layer.float(), x)
    cpu_kernels.LEAST_WORK = 3 * 24 * 40 + 1
    layer(x)
    assert not every_map_a_convolution
