"""What is found out about a GPU before it is used: why torch sees none, and whether torch has code for it."""

from __future__ import annotations

import re
from collections.abc import Collection

import torch

from timesformer.utils.errors import ConfigError

_NO_DRIVER = "Found no NVIDIA driver"  # torch's words on a machine without a GPU, which is no fault


def why_unseen() -> str:
    """Why torch sees no GPU, in a few words: the build, or what the driver says."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this build of torch has no CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return re.split(r"(?<=\.)\s|\n", str(error).strip())[0].rstrip(".")
    return "CUDA_VISIBLE_DEVICES hides them, or the job has no access to them"


def is_fault(why: str) -> bool:
    """Whether `why`, of `why_unseen`, means that there is a GPU which torch cannot use, such as with an old driver."""
    return "driver" in why and not why.startswith(_NO_DRIVER)


def check_device(device: torch.device) -> None:
    """Make `device` the one that this process computes on.

    Raises:
        ConfigError: it does not start, or torch has no code for it.
    """
    if device.type in ("cpu", "mps"):  # mps has one device
        return
    module = torch.get_device_module(device)
    try:
        module.set_device(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # makes the context
    except RuntimeError as error:
        cause = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{device} does not start ({cause}). Look at nvidia-smi, or add: NUM_GPUS 0") from error
    if device.type == "cuda" and torch.version.cuda:
        name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        if not has_code_for(capability, built_for := torch.cuda.get_arch_list()):
            raise ConfigError(
                f"{device}, {name}, is of compute capability {capability[0]}.{capability[1]}, and torch "
                f"{torch.__version__} has code for {', '.join(built_for)} only. Install a build of torch for it (an "
                "older CUDA, see pytorch.org/get-started/previous-versions), or add: NUM_GPUS 0"
            )


def has_code_for(capability: tuple[int, int], built_for: Collection[str]) -> bool:
    """Whether a GPU runs code that was compiled for `built_for`, such as ["sm_80", "compute_90"].

    Machine code (sm_) runs on the same major capability from its minor one on; with a letter at its end on that
    capability alone. The intermediate code (compute_) runs on all later ones. (CUDA programming guide, 3.1.)
    """
    for kind, major, minor, letter in re.findall(r"(sm|compute)_(\d+)(\d)([af]?)", " ".join(built_for)):
        code = (int(major), int(minor))
        exact = capability == code
        later = capability >= code if kind == "compute" else capability[0] == code[0] and capability >= code
        if exact or (later and not letter):
            return True
    return not built_for  # a build that does not say
