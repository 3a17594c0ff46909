"""Checks and measures a GPU in about eight minutes: twelve parts, each in a process of its own, with a limit of time.

    python -m benchmarks.gpu_check --out output/gpu_check
    python -m benchmarks.gpu_check --parts exactness waiting --limit 300

A part writes OUT/PART.json when it ends, so that what was measured stays; a table follows at the end. Without a GPU
every part runs at a small size on the CPU, or says that it has no meaning there. `--limit` is for all parts: those that
would begin later are left out.

It runs from a checkout that is not installed. To a machine without network, with Python 3.12, torch, torchvision, timm,
transformers and the like, bring the rest as wheels that the same Python made elsewhere (35 MB):

    pip3.12 wheel -w wheels --no-deps av fvcore iopath yacs portalocker tabulate termcolor submitit cloudpickle
    pip3.12 install --no-index --no-deps wheels/*.whl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_part(name: str, out: Path, limit: float) -> dict[str, Any]:
    """A part in a process of its own; what it wrote, or how it ended."""
    path, start = out / f"{name}.json", time.monotonic()
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--part", name, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)
        failure = "" if done.returncode == 0 else done.stderr.strip()[-2000:] or f"status {done.returncode}"
    except subprocess.TimeoutExpired:
        failure = f"not done after {limit:.0f} s"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() and not failure else {"failed": failure}
    found = {"seconds": round(time.monotonic() - start, 1), **found}
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def summary(found: dict[str, Any]) -> str:
    """A part in one line: whether it holds, and its first numbers."""
    if "failed" in found:
        return "FAILED: " + found["failed"].splitlines()[-1][:150]
    if "skipped" in found:
        return "skipped: " + found["skipped"]
    state = {True: "ok", False: "WRONG", None: ""}[found.get("ok")]
    return " ".join([state, *_numbers(found)]).strip()[:200]


def _numbers(found: dict[str, Any], prefix: str = "") -> list[str]:
    texts: list[str] = []
    for name, value in found.items():
        if isinstance(value, dict):
            texts += _numbers(value, f"{prefix}{name} ")
        elif isinstance(value, float) and name != "seconds":
            texts.append(f"{prefix}{name} {value:.3g}")
    return texts


def main(argv: list[str] | None = None) -> int:
    """Run the parts; 1 if one fails or finds something wrong."""
    from benchmarks.gpu_parts import PARTS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/gpu_check"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--limit", type=float, default=840, help="seconds for all parts (%(default)s)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        import torch

        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        found = PARTS[arguments.part][0](device)
        (out / f"{arguments.part}.json").write_text(json.dumps(found))
        return 0
    deadline, results = time.monotonic() + arguments.limit, {}
    for name in arguments.parts:
        left = deadline - time.monotonic()
        late = {"skipped": f"no time left of --limit {arguments.limit:.0f}", "seconds": 0.0}
        results[name] = run_part(name, out, min(PARTS[name][1], left)) if left > 5 else late
        print(f"{name:12} {results[name]['seconds']:6.1f} s  {summary(results[name])}", flush=True)
    table = "\n".join(f"| {name} | {found['seconds']} | {summary(found)} |" for name, found in results.items())
    (out / "summary.md").write_text(f"| part | seconds | result |\n|---|---|---|\n{table}\n")
    print(f"\n{(out / 'summary.md').read_text()}")
    return int(any("failed" in found or found.get("ok") is False for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
