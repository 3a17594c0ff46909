"""Compares the form of attention that a run chooses on this CPU with torch's fused form, by CPU time.

Prints the time of the fused form over that of the chosen one, medians of calls in turn. The choice is one
measurement (`models/cpu_kernels.py`), the ratio another one. One thread, unless --threads says otherwise:

    python benchmarks/attention.py
"""

from __future__ import annotations

import argparse
import statistics

import torch

from timesformer.models.cpu_kernels import LEAST_GAIN, MEASURED_QKV, attention_forms, cpu_seconds, machine_name

TOKENS = (4, 8, 16, 32, 64, 96, 197, 393, 785, 1569)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=15, help="calls of each form in turn; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine_name()}; width {options.width}, {options.heads} heads")
    print(f"{'tokens':>8}{'precision':>12}{'pass':>12}{'fused ms':>12}{'own ms':>12}{'chosen':>10}{'ratio':>8}")
    for tokens in TOKENS:
        for dtype in (torch.float32, torch.bfloat16):
            for training in (False, True):
                rows = max(1, MEASURED_QKV // (3 * tokens * options.width))
                forms = attention_forms(
                    torch.randn(rows, tokens, 3 * options.width).to(dtype), options.heads, training=training
                )
                own, fused = cpu_seconds(*forms)
                is_own = LEAST_GAIN * own < fused
                own, fused = cpu_seconds(*forms, repeats=options.repeats, of=statistics.median)
                ratio = fused / own if is_own else 1.0
                print(
                    f"{tokens:8}{str(dtype).removeprefix('torch.'):>12}{'training' if training else 'forward':>12}"
                    f"{1000 * fused:12.3f}{1000 * own:12.3f}{'own' if is_own else 'fused':>10}{ratio:8.2f}"
                )


if __name__ == "__main__":
    main()
