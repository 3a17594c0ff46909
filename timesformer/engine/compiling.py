"""`torch.compile` of a model in place, and whether it can work here."""

from __future__ import annotations

import torch
from torch import nn

from timesformer.utils.errors import ConfigError


def check_compiler(device: torch.device) -> None:
    """Compile something small, so that a run stops before it starts, and not at its first step.

    Raises:
        ConfigError: what `torch.compile` needs is not there.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except RuntimeError as error:
        needs = "triton. Type: pip install triton"
        if device.type == "cpu":
            needs = "a C++ compiler, g++ or the one that the environment variable CXX names. Type: apt-get install g++"
        cause = str(error).strip().partition("\n")[0]
        raise ConfigError(f"MODEL.COMPILE True needs {needs}, or MODEL.COMPILE False ({cause})") from error


def compile_model(model: nn.Module) -> None:
    """Have each block of the model compiled when it is first called with a batch of another size, or in another mode.

    A program serves all blocks that compute the same, so the time for it does not grow with depth; a model without
    `blocks` is compiled as a whole. It stays the same object with the same names. Sizes are compiled one by one, so
    that the numbers a batch gives do not depend on the batches before it: a resumed run computes what one that never
    stopped does. A copy or a pickle of the model is not compiled.
    """
    torch._dynamo.config.recompile_limit = 64  # sizes, modes and kinds of blocks; beyond these torch runs uncompiled
    torch._dynamo.config.optimize_ddp = False  # which cuts programs where DDP's buckets end: a block is small enough
    for part in getattr(model, "blocks", None) or [model]:
        part.compile(dynamic=False)
