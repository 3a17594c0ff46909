"""Find and read a source of weights: a file, a Hugging Face folder, the hub, timm, or those of this package."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer.utils.errors import CheckpointError
from timesformer.weights.files import ALLOWED, FETCH_AGAIN, read_file, safetensors_header

# Files of a Hugging Face folder, in the order of preference. An index names the parts of weights in several files.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# The weights that the package has, by name. docs/gestures.md says how they were made.
PACKAGED = {"gestures": Path(__file__).with_name("gestures.safetensors")}
_SETTINGS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True)
class StoredWeights:
    """What a source of weights holds, as it is stored.

    `metadata` is what stands beside the tensors. Of a Hugging Face folder: `config.json` and, where there is one,
    `preprocessor_config.json`; of timm's weights `timm`: `architecture`, `mean`, `std`, `num_heads`, ...; of this
    project's safetensors files and folders `timesformer`: the JSON under this name in the header or in `config.json`.
    """

    source: str  # as the user named it
    content: Any  # of a torch file all that it holds, mostly a dictionary; else the tensors by name
    metadata: dict[str, Any] = field(default_factory=dict)


def is_hub_name(source: str | Path) -> bool:
    """Whether `source` names weights of the package, the hub or timm rather than a file or folder."""
    return str(source) in PACKAGED or str(source).startswith(("timm:", "hf:"))


def can_be_had(source: str) -> bool:
    """Whether `read_source` would probably find `source`: here, in a cache, or on the hub (a request)."""
    if not is_hub_name(source) or source in PACKAGED:
        return source in PACKAGED or Path(source).exists()
    from huggingface_hub import file_exists, try_to_load_from_cache

    repo, _, revision = source.removeprefix("hf:").partition("@")
    if source.startswith("timm:"):
        import timm

        settings = timm.get_pretrained_cfg(source.removeprefix("timm:"), allow_unregistered=True)
        repo, revision = str(getattr(settings, "hf_hub_id", "")), ""
    if any(isinstance(try_to_load_from_cache(repo, name, revision=revision or None), str) for name in _WEIGHTS):
        return True
    try:
        return any(file_exists(repo, name, revision=revision or None) for name in _WEIGHTS)
    except Exception:  # of many types, of several libraries: no network, no such repository
        return False


def read_source(source: str | Path) -> StoredWeights:
    """Read weights: a file, a Hugging Face folder, `gestures` (packaged), `hf:OWNER/NAME[@REVISION]` or `timm:NAME`.

    Raises:
        CheckpointError: nothing there, or no weights, or damaged, or code in it, or no network.
    """
    name = str(source)
    if name.startswith("timm:"):
        return _from_timm(name)
    if name.startswith("hf:"):
        return _from_folder(_download(name), name)
    path = PACKAGED.get(name, Path(name))
    if path.is_dir():
        return _from_folder(path, name)
    content, header = read_file(path), safetensors_header(path, "timesformer")
    return StoredWeights(name, content, {"timesformer": _parse(header, name)} if header else {})


def _from_folder(folder: Path, source: str) -> StoredWeights:
    """A Hugging Face folder: `config.json` beside weights in one file, or in several with an index."""
    names = sorted(path.name for path in folder.iterdir())
    weights = next((folder / name for name in _WEIGHTS if name in names), None)
    if weights is None or "config.json" not in names:
        raise CheckpointError(
            f"{source}: a Hugging Face folder has config.json and one of {', '.join(_WEIGHTS)}; "
            f"here there is {', '.join(names[:10]) or 'nothing'}. {ALLOWED}."
        )
    metadata = {name: _parse((folder / name).read_bytes(), folder / name) for name in _SETTINGS if name in names}
    if "video_preprocessor_config.json" in metadata:
        metadata.setdefault("preprocessor_config.json", metadata.pop("video_preprocessor_config.json"))
    config = metadata["config.json"]
    if isinstance(own := config.get("timesformer"), dict):
        metadata["timesformer"] = own
    if isinstance(settings := config.get("pretrained_cfg"), dict):  # timm's models on the hub
        metadata["timm"] = {**settings, "architecture": config.get("architecture")}
    return StoredWeights(source, _read_parts(weights) if weights.suffix == ".json" else read_file(weights), metadata)


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Tensors of all files that an index names."""
    file_of = _parse(index.read_bytes(), index).get("weight_map")
    file_of = file_of if isinstance(file_of, dict) else {}
    tensors: dict[str, Tensor] = {}
    for name in sorted({Path(str(part)).name for part in file_of.values()}):
        part = read_file(index.parent / name)
        tensors |= part if isinstance(part, dict) else {}
    if not file_of or file_of.keys() - tensors.keys():
        lacking = min(file_of.keys() - tensors.keys(), default="weight_map")
        raise CheckpointError(f"{index}: an index of weights, but {lacking} is nowhere. {FETCH_AGAIN}.")
    return tensors


def _parse(text: str | bytes, path: object) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: no JSON object of names and values ({error}). {FETCH_AGAIN}.") from error


def _download(source: str) -> Path:
    """The folder of a hub repository in the cache of huggingface_hub, downloaded where needed."""
    from huggingface_hub import snapshot_download

    repo, _, revision = source.removeprefix("hf:").partition("@")
    try:
        for weights in ("model*.safetensors*", "pytorch_model*.bin*"):
            folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=[*_SETTINGS, weights]))
            if any(folder.glob(weights)):
                break
    except Exception as error:  # of many types, of several libraries
        raise _hub_refusal(source, repo, error) from error
    return folder


def _from_timm(source: str) -> StoredWeights:
    """Pretrained weights of timm, through the cache that it uses."""
    import timm

    name = source.removeprefix("timm:")
    known = {form for model in timm.list_pretrained() for form in (model, model.partition(".")[0])}
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, sorted(known), n=5)) or "vit_base_patch16_224"
        raise CheckpointError(f"{source}: timm has no pretrained weights of this name. Near names: {near}.")
    try:
        with torch.random.fork_rng(devices=[]):  # the model's own initialisation draws random numbers
            model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # of many types, of several libraries
        raise _hub_refusal(source, getattr(timm.get_pretrained_cfg(name), "hf_hub_id", name), error) from error
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in model.pretrained_cfg.items()}
    attention = getattr(next(iter(getattr(model, "blocks", ())), None), "attn", None)
    settings["num_heads"] = getattr(attention, "num_heads", None)  # no tensor's shape depends on it
    return StoredWeights(source, model.state_dict(), {"timm": settings})


def _hub_refusal(source: str, repo: str, error: Exception) -> CheckpointError:
    """The error for weights that huggingface_hub does not give."""
    from huggingface_hub import constants, errors

    if isinstance(error, (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        why = "the hub has no such hf:OWNER/NAME[@REVISION], or it is private (then: hf auth login)"
    else:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"fetching it failed ({reason})"
        why += f". Where there is a network: hf download {repo}; for another machine, copy that folder and name it"
    return CheckpointError(f"{source}: not completely in the cache of huggingface_hub, and {why}.")
