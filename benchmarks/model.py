"""Compares the model with its textbook form and with Hugging Face's: time, memory and logits, same weights and clips.

    python -m benchmarks.model                                     TimeSformer-B/16, 8x224 (an hour of CPU time)
    python -m benchmarks.model --depth 3 --schemes divided_space_time --batches 1 --compile

All variants of a row take turns in one process; the table has medians and ratios of CPU time (on a GPU: of the clock).
A training step is a forward and a backward pass, without the optimiser, dropout and stochastic depth.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.textbook import BLOCKS, TextbookTimeSformer
from timesformer.cost.benchmark import HUGGING_FACE_SCHEMES, PROJECT, TRANSFORMERS, HuggingFaceTimeSformer
from timesformer.cost.measure import interleaved, saved_for_backward
from timesformer.models.cpu_kernels import measured_forms, use_forms
from timesformer.models.summary import without_values
from timesformer.models.vit import VisionTransformer
from timesformer.utils.compute import autocast
from timesformer.utils.env import collect_versions
from timesformer.visualization.figures import GREY, SKY, headline, plain, save_figure, tidy

TEXTBOOK, COMPILED = "textbook", "timesformer, compiled"
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
PASSES = ("forward", "training")
# What is compared: the faster one, and what it is compared with, in the same precision or in fp32.
FORMS = (PROJECT, COMPILED)
VIDEOMAE = "videomae"
AGAINST = (TEXTBOOK, TRANSFORMERS, VIDEOMAE)


class VideoMAE(nn.Module):
    """Hugging Face's VideoMAE-B with random weights: another architecture, of twice as many frames."""

    def __init__(self, size: int) -> None:
        super().__init__()
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        sizes: Any = {"image_size": size, "num_frames": 16, "num_labels": 400}
        self.model = VideoMAEForVideoClassification(VideoMAEConfig(**sizes))

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, 8, H, W), whose frames are repeated, -> logits (B, K)."""
        return self.model(clips.repeat_interleave(2, dim=2).transpose(1, 2)).logits  # type: ignore[no-any-return]


def models_of(scheme: str, args: argparse.Namespace, device: torch.device) -> dict[str, nn.Module]:
    """The same random weights in every form there is of `scheme`, at every call."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=args.size,
        num_classes=400,
        num_frames=args.frames,
        embed_dim=args.dim,
        num_heads=args.dim // 64,
        depth=args.depth,
        qkv_bias=True,
        drop_path_rate=0.0,
        attention_type=scheme,
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)  # `temporal_fc` is not zero
    model.to(device)
    models: dict[str, Any] = {PROJECT: model, TEXTBOOK: TextbookTimeSformer(model)}
    if scheme in HUGGING_FACE_SCHEMES and TRANSFORMERS in args.against:
        models[TRANSFORMERS] = HuggingFaceTimeSformer(model)
    if VIDEOMAE in args.against and args.frames == 8:
        models[VIDEOMAE] = VideoMAE(args.size).to(device)
    if args.compile:
        models[COMPILED] = torch.compile(model)
    return models


def logits(model: nn.Module, clips: Tensor, dtype: torch.dtype | None) -> Tensor:
    """(B, K) in fp32, under autocast."""
    with autocast(clips.device, dtype):
        return model(clips).float()


def forward(model: nn.Module, clips: Tensor, dtype: torch.dtype | None) -> None:
    """A pass without gradients."""
    with torch.no_grad():
        logits(model, clips, dtype)


def training(model: nn.Module, clips: Tensor, dtype: torch.dtype | None) -> None:
    """A forward and a backward pass."""
    F.cross_entropy(
        logits(model, clips, dtype), torch.zeros(len(clips), dtype=torch.long, device=clips.device)
    ).backward()
    model.zero_grad(set_to_none=True)


def largest_difference(models: dict[str, nn.Module], clips: Tensor) -> dict[str, float]:
    """Of the logits in fp32 from the textbook's, over the largest of those."""
    with torch.no_grad():
        found = {name: logits(model.eval(), clips, None) for name, model in models.items() if name != VIDEOMAE}
    wanted = found.pop(TEXTBOOK)
    return {name: float((got - wanted).abs().max() / wanted.abs().max()) for name, got in found.items()}


def saved(models: dict[str, nn.Module], clips: Tensor, dtype: torch.dtype | None) -> dict[str, int]:
    """Bytes that a training step keeps for its backward pass."""
    return {
        name: saved_for_backward(partial(logits, model.train(), clips, dtype), model)
        for name, model in models.items()
        if name != COMPILED  # which keeps it where no hook sees it
    }


def fastest_forms(models: dict[str, dict[str, nn.Module]], args: argparse.Namespace) -> dict[str, bool]:
    """The forms of operations that a training here would measure and choose."""
    shape = (3, args.frames, args.size, args.size)
    found: dict[str, bool] = {}
    for precision, forms in models.items():
        shell, dtype = without_values(forms[PROJECT]), PRECISIONS[precision] or torch.float32
        found |= measured_forms(shell, shape, clips=max(args.batches), dtype=dtype)
    return found


def compare(scheme: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything measured of one scheme."""
    # A model for each precision: ours keeps packed weights between two passes, of one precision at a time.
    models = {precision: models_of(scheme, args, device) for precision in args.precisions}
    use_forms(fastest_forms(models, args) if device.type == "cpu" else {})
    clip = torch.randn(1, 3, args.frames, args.size, args.size, device=device)
    result: dict[str, Any] = {
        "scheme": scheme,
        "difference": largest_difference(models[args.precisions[0]], clip),
        "saved": {},
        "times": [],
    }
    for precision in args.precisions:
        result["saved"][precision] = saved(models[precision], clip, PRECISIONS[precision])
    for batch in args.batches:
        clips = clip.repeat(batch, 1, 1, 1, 1)
        for name, work in (("forward", forward), ("training", training)):
            if name not in args.passes:
                continue
            works: dict[tuple[str, str], Callable[[], None]] = {
                (form, precision): partial(work, model.train(name == "training"), clips, PRECISIONS[precision])
                for precision, forms in models.items()
                for form, model in forms.items()
            }
            for run_once in works.values():
                run_once()
            seconds = interleaved(works, device=device, repeats=args.repeats)
            medians = {f"{form}, {precision}": statistics.median(s) for (form, precision), s in seconds.items()}
            result["times"].append({"batch": batch, "pass": name, "seconds": medians})
    return result


def ratios(result: dict[str, Any], precisions: list[str]) -> list[dict[str, Any]]:
    """How many times as fast as the others each form is: in the same precision, and against fp32."""
    rows = []
    for times in result["times"]:
        seconds = times["seconds"]
        for form in FORMS:
            for precision in precisions:
                for other in AGAINST:
                    for base in dict.fromkeys((precision, precisions[0])):
                        mine, theirs = (seconds.get(f"{a}, {b}") for a, b in ((form, precision), (other, base)))
                        if mine and theirs:
                            words = f"{form} {precision} : {other} {base}"
                            row = {"scheme": result["scheme"], "batch": times["batch"], "pass": times["pass"]}
                            rows.append(row | {"what": words, "seconds": mine, "other": theirs, "ratio": theirs / mine})
    return rows


def save_ratios(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw one horizontal bar per row, a dict with `name` and `ratio`, the first on top, and a line at 1."""
    figure = Figure(figsize=(11, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        axes.barh(position, row["ratio"], height=0.62, color=SKY if row["ratio"] >= 1 else GREY)
        axes.text(row["ratio"], position, f" {row['ratio']:.2f}x", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [plain(row["name"], 70) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.1)
    tidy(axes, grid="x")
    headline(figure, title, width=110)
    save_figure(figure, path)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemes", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="clips of a pass")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument(
        "--against", nargs="+", choices=AGAINST, default=[TEXTBOOK, TRANSFORMERS], help="the textbook form always"
    )
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--dim", type=int, default=768, help="width, a multiple of 64")
    parser.add_argument("--depth", type=int, default=12, help="blocks")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each; the median counts")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well (needs a C++ compiler on a CPU)")
    parser.add_argument("--cpu", action="store_true", help="on the CPU even where there is a GPU")
    parser.add_argument("--out", type=Path, default=Path("output/model"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Compare, print, and write model.json and model.png."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    results, rows = [], []
    print("| attention | clips | pass | compared | s | s | times as fast |\n|---|---|---|---|---|---|---|")
    for scheme in args.schemes:
        results.append(compare(scheme, args, device))
        for row in ratios(results[-1], args.precisions):
            rows.append(row)
            numbers = f"{row['seconds']:.3g} | {row['other']:.3g} | {row['ratio']:.2f}"
            print(f"| {scheme} | {row['batch']} | {row['pass']} | {row['what']} | {numbers} |")
    print("\n| attention | saved for backward, a clip | MB | of the textbook's |\n|---|---|---|---|")
    for result in results:
        for precision, sizes in result["saved"].items():
            for form, size in sizes.items():
                share = size / sizes[TEXTBOOK]
                print(f"| {result['scheme']} | {form}, {precision} | {size / 1e6:.0f} | {share:.2f} |")
    print()
    for result in results:
        words = ", ".join(f"{form} {value:.1e}" for form, value in result["difference"].items())
        print(f"{result['scheme']}: largest relative difference of the fp32 logits from the textbook's: {words}")
    args.out.mkdir(parents=True, exist_ok=True)
    settings = vars(args) | {"device": str(device)}
    content = {"settings": settings, "versions": collect_versions(), "results": results, "ratios": rows}
    (args.out / "model.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
    bars = [{"name": f"{r['scheme']}, {r['batch']}, {r['pass']}: {r['what']}", "ratio": r["ratio"]} for r in rows]
    save_ratios(
        bars, args.out / "model.png", f"Times as fast, {args.depth} blocks, {args.frames} x {args.size}, {device}"
    )
    print(f"\n{args.out / 'model.json'}, {args.out / 'model.png'}")


if __name__ == "__main__":
    main()
