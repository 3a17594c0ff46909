"""The forms of attention for GPUs equal the textbook form, and the fastest one is chosen; on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from timesformer.models import gpu_kernels
from timesformer.models.gpu_kernels import FORMS, Shape, choose, key, pointwise

CPU = torch.device("cpu")
SHAPE = Shape(8, 12, 2, "float32")


def textbook(qkv: Tensor, heads: int, causal: bool) -> Tensor:
    """Softmax attention as written in the paper."""
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[2:], -torch.inf).triu(1)
    return (scores.softmax(3) @ v).transpose(1, 2).flatten(2)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "_chosen", {})
    monkeypatch.setattr(gpu_kernels, "_noted", {})
    monkeypatch.setattr(gpu_kernels, "_compile", lambda: pointwise)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 50),
    length=st.integers(1, 33),
    heads=st.integers(1, 3),
    causal=st.booleans(),
    most=st.integers(1, 60),
)
def test_all_forms_equal_the_textbook_form(rows: int, length: int, heads: int, causal: bool, most: int) -> None:
    qkv = torch.randn(rows, length, 24 * heads, requires_grad=True)
    grad = torch.randn(rows, length, 8 * heads)
    wanted = textbook(qkv, heads, causal)
    (of_wanted,) = torch.autograd.grad(wanted, qkv, grad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_kernels, "DEVICE", "cpu")
        patch.setattr(gpu_kernels, "MAX_ROWS", most)  # fewer than there are: the call is cut into several
        for name, form in FORMS.items():
            found = form(qkv, heads, causal)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
            torch.testing.assert_close(torch.autograd.grad(found, qkv, grad)[0], of_wanted, rtol=1e-5, atol=1e-5)


def test_masked_rows_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 7, 2, 5, 4)
    seen = torch.rand(7, 1, 1, 5) > 0.3
    seen[..., 0] = True
    wanted = [gpu_kernels.scaled_dot_product(q, k, v, mask) for mask in (None, seen, seen[:1])]
    monkeypatch.setattr(gpu_kernels, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_kernels, "MAX_ROWS", 3)
    found = [gpu_kernels.scaled_dot_product(q, k, v, mask) for mask in (None, seen, seen[:1])]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", FORMS)
def test_half_precision_is_as_exact_as_the_fused_form(name: str) -> None:
    qkv = torch.randn(12, 8, 48)
    wanted, half = textbook(qkv, 2, False), qkv.bfloat16()
    error = (FORMS[name](half, 2, False).float() - wanted).norm()
    assert FORMS[name](half, 2, False).dtype == torch.bfloat16
    assert error <= 2 * (FORMS["fused"](half, 2, False).float() - wanted).norm()


@pytest.mark.slow
def test_the_compiled_form_serves_every_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        programs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    program = torch.compile(pointwise, backend=count)
    monkeypatch.setattr(gpu_kernels, "_compile", lambda: program)
    for length in (8, 16):
        for rows in (6, 9, 12, 40):
            qkv = torch.randn(rows, length, 24)
            torch.testing.assert_close(FORMS["compiled"](qkv, 2, False), textbook(qkv, 2, False))
    assert len(programs) == 2


@pytest.mark.parametrize("fastest", FORMS)
def test_the_fastest_form_is_chosen(fastest: str) -> None:
    order = iter(FORMS)

    def seconds(run: Callable[[], Any], device: torch.device) -> float:
        return 1.0 if next(order) == fastest else 2.0

    assert choose(SHAPE, 6, CPU, seconds=seconds) == fastest


def test_forms_are_measured() -> None:
    assert choose(Shape(2, 4, 1, "float32"), 2, CPU) in FORMS


def test_a_form_that_does_not_work_here_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_kernels, "FORMS", {"packed": fails, "fused": FORMS["fused"]})
    assert choose(SHAPE, 6, CPU, seconds=lambda *_: 1.0) == "fused"


def test_short_rows_on_a_gpu_take_the_chosen_form(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(gpu_kernels, "FORMS", FORMS | {"packed": lambda *_: called.append("packed")})
    long, other = SHAPE._replace(length=100), SHAPE._replace(heads=3)
    gpu_kernels.use_forms({key(*SHAPE): "packed", key(*long): "packed", key(*other): "gone"})
    with FakeTensorMode():
        for length, device in ((8, "cuda"), (9, "cuda"), (100, "cuda"), (8, "cpu")):
            assert gpu_kernels.mix(torch.empty(6, length, 36, device=device), 2, False) is None
    assert called == ["packed"]  # once: the others are of a shape without a choice, long, or not on a GPU
    assert gpu_kernels.noted() == {SHAPE: 6, SHAPE._replace(length=9): 6}


@pytest.mark.parametrize("form", ["packed", "products", "compiled"])
def test_a_compiled_block_takes_the_chosen_form_as_a_part_of_its_program(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(gpu_kernels, "DEVICE", "cpu")
    gpu_kernels.use_forms({key(*SHAPE): form})
    torch._dynamo.reset()
    program = torch.compile(lambda qkv: gpu_kernels.mix(qkv, 2, False), fullgraph=True, backend="eager")
    qkv = torch.randn(6, 8, 36)
    torch.testing.assert_close(program(qkv), textbook(qkv, 2, False))
