"""Attention in its two forms: torch's fused one, and plain products of a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timesformer.models import cpu_kernels
from timesformer.models.attention import Attention, split_heads
from timesformer.models.cpu_kernels import PlainAttention
from timesformer.models.summary import without_values
from timesformer.models.vit import ATTENTION_TYPES, VisionTransformer


def fused(qkv: torch.Tensor, attention: Attention) -> torch.Tensor:
    return attention.attend(*split_heads(qkv, attention.num_heads))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), length=st.integers(1, 40), heads=st.integers(1, 4), chunk=st.integers(1, 10**4))
def test_both_forms_agree(rows: int, length: int, heads: int, chunk: int) -> None:
    attention = Attention(8 * heads, heads, qkv_bias=True, attn_drop=0.0, proj_drop=0.0)
    qkv, grad = torch.randn(rows, length, 24 * heads, requires_grad=True), torch.randn(rows, length, 8 * heads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_kernels, "CHUNK", chunk)  # also less than a row
        plain = PlainAttention.apply(qkv, heads)
        (of_plain,) = torch.autograd.grad(plain, qkv, grad)
    wanted = fused(qkv, attention)
    torch.testing.assert_close(plain, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(of_plain, torch.autograd.grad(wanted, qkv, grad)[0], atol=1e-5, rtol=1e-4)


def test_gradients_of_the_plain_form() -> None:
    qkv = torch.randn(3, 5, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: PlainAttention.apply(x, 2), qkv)


@pytest.mark.parametrize(
    "dtype, length, plain",
    [(torch.float32, 8, True), (torch.float32, 9, False), (torch.bfloat16, 197, True), (torch.bfloat16, 600, False)],
    ids=str,
)
def test_the_form_is_chosen_by_precision_and_length(
    dtype: torch.dtype, length: int, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, called = Attention(24, 3, qkv_bias=True, attn_drop=0.5, proj_drop=0.0).eval(), []
    monkeypatch.setattr(Attention, "attend", lambda *_, **__: called.append("fused"))
    monkeypatch.setattr(PlainAttention, "apply", lambda *_, **__: called.append("plain"))
    x = torch.randn(2, length, 72, dtype=dtype)
    attention.mix(x)
    attention.mix(x, torch.ones(2, length, dtype=torch.bool))
    attention.train().mix(x)
    assert called == ["plain" if plain else "fused", "fused", "fused"]  # masks and dropout are for the fused form


@pytest.fixture
def own_forms_after() -> Iterator[None]:
    yield
    cpu_kernels.use_forms({})


SIZES: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_frames": 3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_choice_of_forms_changes_results_beyond_rounding(
    dtype: torch.dtype, own_forms_after: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(**SIZES, num_classes=5, init="scratch").eval()
    clips, results, called = torch.randn(2, 3, 3, 16, 16), {}, []
    monkeypatch.setattr(cpu_kernels, "_is_faster", lambda own, torchs: (own(), torchs()) is not None)
    forms = cpu_kernels.measured_forms(without_values(model), model.input_shape, clips=2, dtype=dtype)
    assert {name.split()[1] for name in forms if "attention" in name} == {"3x24/2", "5x24/2"}
    assert {name.split()[-1] for name in forms if "attention" in name} == {"forward", "training"}
    plain = PlainAttention.apply
    monkeypatch.setattr(PlainAttention, "apply", lambda *words: called.append(1) or plain(*words))
    for name, choice in (("own", forms), ("torch", dict.fromkeys(forms, False)), ("off", None)):
        cpu_kernels.use_forms(choice)
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                forward = model(clips)
            model(clips).float().square().sum().backward()
        results[name] = [forward.float(), model.blocks[0].attn.qkv.weight.grad]
        assert bool(called) == (name == "own")
        called.clear()
        model.train().eval()  # drops what was packed
    for name in ("torch", "off"):
        for own, torchs in zip(results["own"], results[name], strict=True):
            assert (own - torchs).norm() < (1e-5 if dtype == torch.float32 else 0.05) * torchs.norm()


def test_a_machine_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell, store = without_values(VisionTransformer(**SIZES, num_classes=5)), tmp_path / "new" / "kernels.json"
    how: dict[str, Any] = {"clips": 2, "dtype": torch.float32, "store": store}
    state = torch.random.get_rng_state()
    first = cpu_kernels.measured_forms(shell, (3, 3, 16, 16), **how)
    assert torch.equal(state, torch.random.get_rng_state()) and len(first) >= 4
    monkeypatch.setattr(cpu_kernels, "_is_faster", lambda *_: "measured again")
    assert cpu_kernels.measured_forms(shell, (3, 3, 16, 16), **how) == first
    for damaged in ("[", "[]", '{"a": 1}'):
        store.write_text(damaged)
        assert set(cpu_kernels.measured_forms(shell, (3, 3, 16, 16), **how).values()) == {"measured again"}
    monkeypatch.setattr(cpu_kernels, "machine_name", lambda: "another")
    monkeypatch.setattr(cpu_kernels, "_is_faster", lambda *_: "measured there")
    assert set(cpu_kernels.measured_forms(shell, (3, 3, 16, 16), **how).values()) == {"measured there"}


def test_under_autocast_both_forms_give_what_autocast_gives() -> None:
    attention, x = Attention(64, 4, qkv_bias=True, attn_drop=0.0, proj_drop=0.0), torch.randn(3, 30, 64)
    wanted = attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = attention(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, atol=0.02, rtol=0.02)
    got.float().sum().backward()
    assert attention.qkv.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_a_traced_model_is_the_model(attention_type: str) -> None:
    """As torch.jit.trace and torch.onnx.export(dynamo=False) record it."""
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_frames": 3}
    model = VisionTransformer(**sizes, num_classes=5, attention_type=attention_type, init="scratch").eval()  # type: ignore[arg-type]
    first, second = torch.randn(2, 1, 3, 3, 16, 16)
    for context in (torch.no_grad(), torch.enable_grad(), torch.inference_mode()):
        with context:
            traced = torch.jit.trace(model, first, check_trace=False)
            assert torch.equal(traced(second), traced(second))
            torch.testing.assert_close(traced(second), model(second), rtol=1e-5, atol=1e-6)
            assert not torch.allclose(model(first), model(second), atol=1e-2)
