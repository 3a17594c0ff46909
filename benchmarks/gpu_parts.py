"""The parts of `benchmarks/gpu_check.py`: each is a function of a device that gives numbers for JSON.

On a CPU sizes are small, and what has no meaning there is left out, which a part says under "skipped".
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.textbook import TextbookTimeSformer
from tests.gpu import checks
from timesformer.cost.benchmark import HuggingFaceTimeSformer
from timesformer.cost.measure import interleaved
from timesformer.engine.checkpoint import newest_checkpoint, read_checkpoint
from timesformer.models import gpu_kernels
from timesformer.models.summary import multiply_accumulates
from timesformer.models.vit import VisionTransformer
from timesformer.utils.compute import autocast
from timesformer.utils.env import collect_versions

ROOT = Path(__file__).parents[1]
BASE: dict[str, Any] = {"num_frames": 8, "num_classes": 400, "qkv_bias": True, "drop_path_rate": 0.1}
TINY: dict[str, Any] = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}
Numbers = dict[str, Any]
SKIPPED: Numbers = {"skipped": "has no meaning on a CPU"}


def on_gpu(device: torch.device) -> bool:
    """Whether sizes are those of a GPU."""
    return device.type == "cuda"


def seconds(works: dict[Any, Callable[[], object]], device: torch.device, repeats: int = 5) -> dict[Any, float]:
    """Of each work, after a first run; those that fail have none."""
    able = {}
    for name, work in works.items():
        try:
            work()
            able[name] = work
        except (RuntimeError, ImportError, NotImplementedError):
            torch.cuda.empty_cache()
    taken = interleaved(able, device=device, repeats=repeats if on_gpu(device) else 1)
    return {name: statistics.median(times) for name, times in taken.items()}


def environment(device: torch.device) -> Numbers:
    """Versions, and the GPU."""
    found = collect_versions()
    if on_gpu(device):
        properties = torch.cuda.get_device_properties(device)
        found |= {"capability": torch.cuda.get_device_capability(device), "built_for": torch.cuda.get_arch_list()}
        found |= {"memory_gb": properties.total_memory / 1e9, "multiprocessors": properties.multi_processor_count}
    return found


def rates(device: torch.device) -> Numbers:
    """Products of matrices in TFLOP/s, copies on the device and to it in GB/s."""
    side, size = (8192, 2**30) if on_gpu(device) else (256, 2**20)
    works: dict[Any, Callable[[], object]] = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a, b = torch.randn(2, side, side, device=device, dtype=dtype)
        works[f"{dtype} TFLOP/s".removeprefix("torch.")] = partial(torch.matmul, a, b)
    memory, host = torch.empty(size, dtype=torch.uint8, device=device), torch.empty(size, dtype=torch.uint8)
    works["device copy GB/s"] = partial(torch.empty_like(memory).copy_, memory)
    works["pageable to device GB/s"] = partial(memory.copy_, host)
    if on_gpu(device):
        works["pinned to device GB/s"] = partial(memory.copy_, host.pin_memory(), non_blocking=True)
    found = {}
    for name, taken in seconds(works, device).items():
        work = 2 * side**3 / 1e12 if "FLOP" in name else size * (2 if "device copy" in name else 1) / 1e9
        found[name] = work / max(taken, 1e-9)
    if on_gpu(device):
        torch.set_float32_matmul_precision("high")
        tf32 = seconds({"": works["float32 TFLOP/s"]}, device)[""]
        found["tf32 TFLOP/s"] = 2 * side**3 / 1e12 / tf32
    return found


def flex(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """FlexAttention over all rows as one, in blocks of the diagonal."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    rows, length, width = qkv.shape
    same = create_block_mask(
        lambda b, h, q, k: q // length == k // length, None, None, rows * length, rows * length, qkv.device.type
    )
    q, k, v = qkv.reshape(1, rows * length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = torch.compile(flex_attention)(q, k, v, block_mask=same)
    return mixed.transpose(1, 2).reshape(rows, length, width // 3)


def with_backend(backend: Any, qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """The fused form, by one of torch's kernels."""
    from torch.nn.attention import sdpa_kernel

    with sdpa_kernel(backend):
        return gpu_kernels.fused(qkv, heads, causal)


def attention(device: torch.device) -> Numbers:
    """Milliseconds of every form of attention in bf16, for the number of tokens of a row, 32 clips of B/16, 8x224."""
    from torch.nn.attention import SDPBackend

    forms: dict[str, Callable[..., Tensor]] = dict(gpu_kernels.FORMS)
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH") if on_gpu(device) else ("MATH",):
        forms[name.lower()] = partial(with_backend, getattr(SDPBackend, name))
    if on_gpu(device):
        forms["flex"] = flex
    clips, heads, width = (32, 12, 768) if on_gpu(device) else (1, 2, 32)
    found: Numbers = {}
    for length, rows in ((8, 196), (32, 49), (197, 8), (1569, 1)):
        qkv = torch.randn(rows * clips, length, 3 * width, device=device, dtype=torch.bfloat16, requires_grad=True)
        grad = torch.randn(rows * clips, length, width, device=device, dtype=torch.bfloat16)
        short = length <= gpu_kernels.MAX_TOKENS
        names = [n for n in forms if short or n not in ("products", "compiled", "packed", "flex")]
        works: dict[Any, Callable[[], object]] = {}
        for name in names:
            works[name, "forward"] = partial(_forward, forms[name], qkv, heads)
            works[name, "training"] = partial(_backward, forms[name], qkv, heads, grad)
        for (name, kind), taken in seconds(works, device, 3).items():
            found.setdefault(f"{length} tokens, {kind}", {})[name] = 1e3 * taken
        if short:
            shape = gpu_kernels.Shape(length, width, heads, "bfloat16")
            found[f"{length} tokens, chosen"] = gpu_kernels.choose(shape, len(qkv), device)
    return found


def _forward(form: Callable[..., Tensor], qkv: Tensor, heads: int) -> None:
    with torch.no_grad():
        form(qkv, heads, False)


def _backward(form: Callable[..., Tensor], qkv: Tensor, heads: int, grad: Tensor) -> None:
    torch.autograd.grad(form(qkv, heads, False), qkv, grad)


def exactness(device: torch.device) -> Numbers:
    """The error of every scheme and precision, the textbook form's own in it, and whether it is allowed."""
    found = {}
    precisions = ("fp32", "bf16", "fp16") if on_gpu(device) else ("fp32", "bf16")
    for name, (own, textbook) in checks.all_errors(device, precisions).items():
        found[name] = {"error": own, "textbook": textbook, "ok": own <= checks.allowed(name.split()[-1], textbook)}
    return found | {"ok": all(entry["ok"] for entry in found.values())}


def waiting(device: torch.device) -> Numbers:
    """Losses of steps in which nothing waits for the GPU; torch raises otherwise."""
    precisions = ("fp32", "bf16", "fp16") if on_gpu(device) else ("fp32",)
    return {precision: checks.steps_wait_for_nothing(device, precision) for precision in precisions} | {"ok": True}


def model_and_step(device: torch.device, clips: int, form: str = "ours") -> tuple[Any, Callable[[], None], int]:
    """B/16, 8x224, divided (a tiny one on a CPU), an optimiser step in bf16, and its multiply-accumulates."""
    model: Any = VisionTransformer(**BASE | ({} if on_gpu(device) else TINY)).to(device)
    macs = multiply_accumulates(model, model.input_shape, clips=clips, backward=True)
    x = torch.randn(clips, *model.input_shape, device=device)
    if form == "transformers":
        model = HuggingFaceTimeSformer(model)
    elif form == "textbook":
        model = TextbookTimeSformer(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    labels = torch.zeros(clips, dtype=torch.long, device=device)

    def step() -> None:
        with autocast(device, torch.bfloat16):
            logits = model(x)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model.train(), step, macs


def use_fastest_forms(device: torch.device, clips: int) -> None:
    """As a training chooses at its start."""
    heads, width = (12, 768) if on_gpu(device) else (2, 32)
    shape = gpu_kernels.Shape(8, width, heads, "bfloat16")
    form = gpu_kernels.choose(shape, (196 if on_gpu(device) else 4) * clips, device)
    gpu_kernels.use_forms({gpu_kernels.key(*shape): form})


def eager(device: torch.device) -> Numbers:
    """Milliseconds of a training step, share of the matrix rate, Hugging Face's ratio, and where the time goes."""
    rate = matrix_rate(device)
    found: Numbers = {"matrix rate, TFLOP/s": 2 * rate / 1e12}
    sizes = (8, 32, 64) if on_gpu(device) else (2,)
    for clips in sizes:
        for chosen in (False, True):
            gpu_kernels.use_forms({})
            if chosen:
                use_fastest_forms(device, clips)
            _, step, macs = model_and_step(device, clips)
            taken = seconds({"": step}, device)[""]
            key = f"{clips} clips" + (", forms chosen" if chosen else "")
            found[key] = {"ms": 1e3 * taken, "share": macs / taken / rate}
    clips = 32 if on_gpu(device) else 2
    _, other, _ = model_and_step(device, clips, "transformers")
    theirs = seconds({"": other}, device).get("")
    found["transformers"] = theirs and {"clips": clips, "ms": 1e3 * theirs}
    if on_gpu(device):
        _, step, _ = model_and_step(device, clips)
        step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
            torch.cuda.synchronize()
        events = sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total)[:25]
        found["kernels, ms"] = {event.key[:90]: event.self_device_time_total / 1e3 for event in events}
    return found


def matrix_rate(device: torch.device) -> float:
    """Multiply-accumulates a second of a large product in bf16."""
    side = 8192 if on_gpu(device) else 256
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return side**3 / max(seconds({"": lambda: a @ b}, device)[""], 1e-9)


def compiled(device: torch.device) -> Numbers:
    """Seconds to compile, milliseconds of a step, and the programs that other sizes and evaluation add."""
    from torch._dynamo.utils import counters

    from timesformer.engine.compiling import compile_model

    rate, sizes = matrix_rate(device), (32, 20, 1) if on_gpu(device) else (2, 1)
    if not on_gpu(device):
        torch.compile = partial(torch.compile, backend="aot_eager")  # all but the generated code, which takes long
    use_fastest_forms(device, sizes[0])
    found: Numbers = {}
    for clips in sizes:
        model, step, macs = model_and_step(device, clips)
        compile_model(model)
        before, start = counters["stats"]["unique_graphs"], time.perf_counter()
        step()
        entry = {"compile s": time.perf_counter() - start, "programs": counters["stats"]["unique_graphs"] - before}
        taken = seconds({"": step}, device)[""]
        found[f"{clips} clips"] = entry | {"ms": 1e3 * taken, "share": macs / taken / rate}
    start = time.perf_counter()
    with torch.no_grad(), autocast(device, torch.bfloat16):
        model.eval()(torch.zeros(sizes[0], *model.input_shape, device=device))
    return found | {"evaluation, compile s": time.perf_counter() - start}


def resume(device: torch.device) -> Numbers:
    """Whether losses after a resume are those without, to the bit."""
    found = {precision: checks.resumes_exactly(device, precision) for precision in ("fp32", "bf16")}
    return found | {"ok": all(found.values())}


def one_rank(device: torch.device) -> Numbers:
    """Differences of weights after steps with one process of DDP (NCCL) and FSDP2."""
    with tempfile.TemporaryDirectory() as folder:
        found = {strategy: checks.one_rank(device, strategy, Path(folder)) for strategy in ("ddp", "fsdp")}
    return found | {"ok": max(found.values()) < 1e-4}


def infinity(device: torch.device) -> Numbers:
    """fp16 with an injected infinity."""
    if not on_gpu(device):
        return SKIPPED
    before, after, later, stayed = checks.infinity_is_skipped(device)
    return {"scales": [before, after, later], "ok": stayed and after == before / 2}


def memory(device: torch.device) -> Numbers:
    """Out of memory at 4096 clips, then 8 train; 336 clips are evaluated, which are 65,856 rows."""
    sizes = BASE if on_gpu(device) else BASE | TINY
    many = {"too_many": 4096, "few": 8, "evaluated": 336} if on_gpu(device) else dict.fromkeys(
        ("too_many", "few", "evaluated"), 2
    )  # fmt: skip
    said = checks.too_many_then_few(device, **many, **sizes)
    return {"said": said, "ok": bool(said) == on_gpu(device)}


def demo(device: torch.device) -> Numbers:
    """The gesture demo: stopped by SIGUSR2 after its first epoch, resumed, tested; top-1 in percent."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "timesformer", "train", "--cfg", "configs/Gestures/TimeSformer_8x32_demo.yaml"]
        command += ["OUTPUT_DIR", folder, "NUM_GPUS", "auto" if on_gpu(device) else "0", "PRECISION", "auto"]
        command += ["TRAIN.AUTO_RESUME", "True", "TENSORBOARD.ENABLE", "False", "GESTURES.NUM_SUBJECTS"]
        command += ["[20,5,5]", "SOLVER.MAX_EPOCH", "6"] if on_gpu(device) else ["[2,1,1]", "SOLVER.MAX_EPOCH", "2"]
        log = Path(folder) / "metrics.jsonl"
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not (log.is_file() and '"val"' in log.read_text()):
            time.sleep(0.2)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGUSR2)
        _, text = process.communicate()
        stopped = process.returncode
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{text[-1500:]}\n{done.stderr[-1500:]}")
        newest = newest_checkpoint(folder)
        top1 = json.loads((Path(folder) / "results.json").read_text())["top1"]
        return {
            "status after SIGUSR2": stopped,
            "top1": top1,
            "forms": read_checkpoint(newest)["gpu_kernels"] if newest else {},
            "ok": True,
        }


# The most valuable first; each with its limit in seconds.
PARTS: dict[str, tuple[Callable[[torch.device], Numbers], int]] = {
    "environment": (environment, 60), "rates": (rates, 60), "attention": (attention, 120),
    "exactness": (exactness, 60), "waiting": (waiting, 60), "eager": (eager, 120), "compiled": (compiled, 180),
    "resume": (resume, 60), "one_rank": (one_rank, 60), "infinity": (infinity, 60), "memory": (memory, 90),
    "demo": (demo, 180),
}  # fmt: skip
