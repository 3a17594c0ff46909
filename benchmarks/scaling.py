"""Speed and traffic of training by number of processes: measured here, and computed for a cluster.

    python benchmarks/scaling.py --overrides KEY VALUE         measures 1 and 2 processes on this machine
    python benchmarks/scaling.py --compute-only --micro-step-ms 30 --weights-mb 486
                                                               computes from numbers of another machine

Clips are random and in memory, so that neither reading nor the size of a batch plays a part: every process takes
`--clips` clips in a forward pass. docs/scaling.md states the model, its assumptions and what came out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fvcore.common.config import CfgNode

from timesformer.datasets.video_dataset import Batch
from timesformer.distributed import group as distributed
from timesformer.distributed.launch import Processes, launch
from timesformer.distributed.parallel import parallelize
from timesformer.engine.setup import load_run_config
from timesformer.engine.step import TrainStep
from timesformer.models.build import build_model
from timesformer.optim.build import build_optimizer
from timesformer.utils.compute import autocast_dtype
from timesformer.utils.env import available_cpus
from timesformer.video.clip_spec import ClipSpec
from timesformer.visualization.lines import save_lines

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = ("ddp", "fsdp")
BACKWARD = 2 / 3  # of a forward and backward pass: two matrix products for each one of the forward pass


def ring_speed(processes: int, *, gpus_per_node: int, inside: float, between: float) -> float:
    """GB/s of the slowest link of a ring: `inside` a node, `between` two nodes over all network cards of a node."""
    return inside if processes <= gpus_per_node else min(inside, between)


def bytes_sent(strategy: str, weight_bytes: int, processes: int, accumulation: int, *, gloo: bool = False) -> float:
    """Bytes that each process sends in an optimiser step.

    Scattering sums over a ring, or gathering shares, is (n - 1) / n of the weights' bytes. DDP does one of each in a
    step (an all-reduce); FSDP gathers the weights for every forward and every backward pass, and scatters the
    gradients once in a step. Gloo has no scattering of its own and does a whole all-reduce in its place.
    """
    passes = 2 if strategy == "ddp" else 2 * accumulation + (2 if gloo else 1)
    return passes * weight_bytes * (processes - 1) / processes


def step_seconds(strategy: str, *, micro_sec: float, pass_sec: float, accumulation: int, overlap: float) -> float:
    """Seconds of an optimiser step.

    Args:
        micro_sec: forward and backward pass of one micro-batch, without communication.
        pass_sec: one reduce-scatter or all-gather of all weights: (n - 1) / n of their bytes over the ring's GB/s.
        overlap: share of the time in which communication may go on behind computing; 0 and 1 are the bounds. DDP has
            the backward pass of the last micro-batch for it, FSDP every forward and backward pass.
    """
    if strategy == "ddp":
        waits = max(0.0, 2 * pass_sec - overlap * BACKWARD * micro_sec)
    else:
        waits = (accumulation - 1) * max(0.0, 2 * pass_sec - overlap * micro_sec)
        waits += max(0.0, 3 * pass_sec - overlap * micro_sec)
    return accumulation * micro_sec + waits


def expected(
    strategy: str, *, processes: int, micro_sec: float, weight_bytes: int, accumulation: int, ring: float
) -> tuple[float, float]:
    """Efficiency in percent, the clips/s of n processes over n times those of one: nothing hidden, and all that fits.

    Args:
        ring: GB/s of the ring's slowest link.
    """
    pass_sec = weight_bytes * (processes - 1) / processes / (1e9 * ring)
    times: Any = {"micro_sec": micro_sec, "pass_sec": pass_sec, "accumulation": accumulation}
    low, high = (100 * accumulation * micro_sec / step_seconds(strategy, **times, overlap=o) for o in (0.0, 1.0))
    return low, high


def measure(processes: Processes, cfg: CfgNode, options: dict[str, Any], path: str) -> None:
    """Time optimiser steps, the variants taking turns; the first process writes what it found to `path`."""
    torch.set_num_threads(options["threads"])
    rank, world, device = processes.rank, processes.world_size, processes.device
    spec = ClipSpec.from_config(cfg, training=True)
    shape = spec.input_shape
    batch = random_batch(options["clips"], shape, cfg.MODEL.NUM_CLASSES)
    rows, weight_bytes = [], 0
    for strategy in STRATEGIES if world > 1 else ("ddp",):
        model = build_model(cfg).to(device)
        weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        wrapped = parallelize(model, strategy=strategy, device=device, world_size=world)
        wrapped.train()
        take_step = TrainStep(
            wrapped,
            build_optimizer(model, cfg),
            device=device,
            dtype=autocast_dtype(cfg.PRECISION, device, sharded=world > 1),  # the same for both
            normalize=spec.normalize,
            clip_shape=shape,
            num_classes=cfg.MODEL.NUM_CLASSES,
            loss=cfg.MODEL.LOSS_FUNC,
            label_smoothing=0.0,
            clip_grad_norm=0.0,
            mixer=None,
        )
        found: dict[int, list[tuple[float, int]]] = {count: [] for count in options["accumulation"]}
        for _ in range(options["repeats"] + 1):
            for count, times in found.items():
                clips = world * count * options["clips"]
                step = partial(take_step, [batch] * count, num_samples=clips, epoch=0, lr=1e-4, global_step=0)
                times.append(timed(step, device))
        for count, times in found.items():
            seconds, sent = (statistics.median(column) for column in zip(*times[1:], strict=True))
            rows.append({"strategy": strategy, "accumulation": count, "seconds": seconds, "bytes_sent": sent})
    ring = None
    if world > 1:
        buffer = torch.zeros(weight_bytes // 4, device=device)
        seconds = statistics.median(timed(lambda: dist.all_reduce(buffer), device)[0] for _ in range(7))
        ring = bytes_sent("ddp", weight_bytes, world, 1) / seconds / 1e9
    if rank == 0:
        content = {"processes": world, "weight_bytes": weight_bytes, "ring_gb_per_sec": ring, "rows": rows}
        Path(path).write_text(json.dumps(content))
    distributed.barrier()


def random_batch(count: int, shape: tuple[int, ...], num_classes: int) -> Batch:
    """`count` clips of noise."""
    numbers = list(range(count))
    clips = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    return Batch(clips, [i % num_classes for i in numbers], numbers, numbers, [1] * count, [1.0] * count, [], [])


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, int]:
    """Seconds and bytes sent by this process; the latter over sockets and files, which NVLink and RDMA are not."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    distributed.barrier()
    wait()
    sent, start = written_bytes(), time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start, written_bytes() - sent


def written_bytes() -> int:
    """Bytes that this process has handed to the kernel; 0 where the kernel does not tell (not Linux)."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measurements by number of processes, the first of them one; prints a table."""
    most, results = max(arguments.processes), []
    options = {
        "clips": arguments.clips,
        "accumulation": arguments.accumulation,
        "repeats": arguments.repeats,
        "threads": max(1, available_cpus() // most),
    }
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.processes:
            batch, gpus = arguments.clips * count, count if torch.cuda.is_available() else 0
            sizes = (
                f"TRAIN.BATCH_SIZE {batch} GLOBAL_BATCH_SIZE {batch} NUM_GPUS {gpus} DIST.PROCESSES_PER_NODE {count}"
            )
            cfg = load_run_config(str(arguments.cfg), [*arguments.overrides, *sizes.split()]).cfg
            launch(cfg, measure, cfg, options, f"{folder}/{count}.json")
            results.append(json.loads(Path(f"{folder}/{count}.json").read_text()))
    alone = {row["accumulation"]: row["seconds"] for row in results[0]["rows"]}
    table = []
    for result in results:
        count, weights, ring = result["processes"], result["weight_bytes"], result["ring_gb_per_sec"]
        for row in result["rows"]:
            strategy, steps, seconds = row["strategy"], row["accumulation"], row["seconds"]
            settings = {"processes": count, "micro_sec": alone[steps] / steps, "weight_bytes": weights}
            row["clips_per_sec"] = count * steps * arguments.clips / seconds
            row["efficiency"] = 100 * alone[steps] / seconds
            row["expected"] = expected(strategy, **settings, accumulation=steps, ring=ring) if ring else (100.0, 100.0)
            on_cpu = not torch.cuda.is_available()
            row["expected_bytes"] = bytes_sent(strategy, weights, count, steps, gloo=on_cpu)
            numbers = [f"{row['clips_per_sec']:.2f}", f"{row['efficiency']:.0f}", bounds(row["expected"])]
            traffic = [f"{row['bytes_sent'] / 1e6:.2f}", f"{row['expected_bytes'] / 1e6:.2f}"]
            table.append([count, strategy if count > 1 else "", steps, f"{1e3 * seconds:.0f}", *numbers, *traffic])
    times = ("ms a step", "clips/s", "efficiency %", "expected %")
    show(["processes", "strategy", "accumulation", *times, "MB sent", "expected MB"], table)
    for result in results[1:]:
        print(f"all-reduce of the weights by {result['processes']}: {result['ring_gb_per_sec']:.2f} GB/s")
    fastest = min(seconds / steps for steps, seconds in alone.items())
    return {"micro_sec": fastest, "weight_bytes": results[0]["weight_bytes"], "options": options, "measured": results}


def bounds(pair: Sequence[float]) -> str:
    """Two percentages as one reads them."""
    low, high = (f"{value:.0f}" for value in pair)
    return low if low == high else f"{low} to {high}"


def show(columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table in Markdown."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def compute_all(arguments: argparse.Namespace, micro_sec: float, weight_bytes: int) -> list[dict[str, Any]]:
    """Expected efficiency on each network; prints a table."""
    variants = [(strategy, steps) for strategy in STRATEGIES for steps in arguments.accumulation]
    rows, table = [], []
    for gbit in arguments.network_gbit:
        links = {"gpus_per_node": arguments.gpus_per_node, "inside": arguments.inside_gb, "between": gbit / 8}
        for gpus in arguments.gpus:
            settings = {"processes": gpus, "micro_sec": micro_sec, "weight_bytes": weight_bytes}
            found = [expected(s, **settings, accumulation=a, ring=ring_speed(gpus, **links)) for s, a in variants]
            table.append([f"{gbit:g}", gpus, *map(bounds, found)])
            for (strategy, steps), (low, high) in zip(variants, found, strict=True):
                key = {"network_gbit": gbit, "gpus": gpus, "strategy": strategy, "accumulation": steps}
                rows.append({**key, "clips_per_step": gpus * steps * arguments.clips, "low": low, "high": high})
    print(
        f"\nEfficiency in %, from nothing hidden to all that fits behind computing: {1e3 * micro_sec:.1f} ms for "
        f"{arguments.clips} clips, {weight_bytes / 1e6:.1f} MB of weights, {arguments.gpus_per_node} GPUs a node with "
        f"{arguments.inside_gb:g} GB/s between them"
    )
    show(["Gbit/s a node", "GPUs", *(f"{strategy}, accumulation {steps}" for strategy, steps in variants)], table)
    return rows


def draw(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """The computed rows of DDP as a picture."""
    panels = []
    for gbit in sorted({row["network_gbit"] for row in rows}):
        here = [row for row in rows if row["network_gbit"] == gbit and row["strategy"] == "ddp"]
        lines = []
        for count in sorted({row["accumulation"] for row in here}):
            line = [row for row in here if row["accumulation"] == count]
            columns = {key: [row[name] for row in line] for key, name in (("x", "gpus"), ("y", "high"), ("low", "low"))}
            lines.append({"name": f"accumulation {count}", **columns})
        labels = {"title": f"{gbit:g} Gbit/s a node", "xlabel": "processes", "ylabel": "efficiency (%)"}
        panels.append({**labels, "axes": {"ylim": (0, 104)}, "lines": lines})
    save_lines(panels, path, title)


def main(argv: list[str] | None = None) -> None:
    """Measure, compute, print, and write scaling.json and scaling.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/scaling"))
    parser.add_argument("--cfg", type=Path, default=ROOT / "configs/Gestures/LightTimeSformer_demo.yaml")
    parser.add_argument("--clips", type=int, default=8, help="clips of one process's forward pass")
    parser.add_argument("--accumulation", nargs="+", type=int, default=[1, 4], help="forward passes an optimiser step")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2], help="to measure; the first must be 1")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each variant; the median counts")
    parser.add_argument("--compute-only", action="store_true", help="from --micro-step-ms and --weights-mb")
    parser.add_argument("--micro-step-ms", type=float, help="forward and backward pass of --clips clips")
    parser.add_argument("--weights-mb", type=float, help="trained weights in fp32, 4 bytes each, in MB of 10**6 bytes")
    parser.add_argument("--gpus", nargs="+", type=int, default=[8, 16, 32, 256], help="to compute for")
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--inside-gb", type=float, default=200.0, help="GB/s between the GPUs of a node")
    parser.add_argument("--network-gbit", nargs="+", type=float, default=[10, 100, 400], help="Gbit/s of a node")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY VALUE", help="of what is measured")
    arguments = parser.parse_args(argv)
    if arguments.compute_only and not (arguments.micro_step_ms and arguments.weights_mb):
        parser.error("--compute-only needs --micro-step-ms and --weights-mb")
    if arguments.processes[0] != 1:
        parser.error("--processes must start with 1: the others are compared with it")
    content: dict[str, Any] = {} if arguments.compute_only else measure_all(arguments)
    micro_sec = arguments.micro_step_ms / 1e3 if arguments.micro_step_ms else content["micro_sec"]
    weight_bytes = int(arguments.weights_mb * 1e6) if arguments.weights_mb else content["weight_bytes"]
    content["computed"] = compute_all(arguments, micro_sec, weight_bytes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {name: value if not isinstance(value, Path) else str(value) for name, value in vars(arguments).items()}
    (arguments.out / "scaling.json").write_text(json.dumps({"settings": settings, **content}, indent=2) + "\n")
    source = f"{1e3 * micro_sec:.0f} ms for {arguments.clips} clips, {weight_bytes / 1e6:.0f} MB of weights"
    title = f"Computed efficiency of DDP: {source} (solid: all that fits is hidden, dashed: nothing)"
    draw(content["computed"], arguments.out / "scaling.png", title)
    print(f"\n{arguments.out / 'scaling.json'}, {arguments.out / 'scaling.png'}")


if __name__ == "__main__":
    main()
