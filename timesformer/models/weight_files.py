"""Read a source of weights: a file, a Hugging Face folder, the hub, or timm; tensors and plain values, never code."""

from __future__ import annotations

import difflib
import json
import os
import pickletools
import re
import struct
import zipfile
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from timesformer.utils.errors import CheckpointError

# Files of a Hugging Face folder, in the order of preference. An index names the parts of weights in several files.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SETTINGS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # the first bytes of a file of torch.save, since torch 1.6 and before
_LEGACY = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")  # soon after the latter

_ALLOWED = "Allowed are a file of weights, a Hugging Face folder, hf:OWNER/NAME of the hub, or timm:NAME"
_FETCH_AGAIN = "Download or copy it again, and compare its size with the original's"
_TENSORS_ALONE = "Where it was made, save the tensors alone: torch.save(model.state_dict(), 'weights.pyth')"

# What is taken for weights by mistake: how it starts, what it is, what to do.
_MISTAKES = (
    (rb"\Z", "empty (0 bytes)", _FETCH_AGAIN),
    (rb"version https://git-lfs", "a Git LFS pointer, not the weights themselves", "Fetch them: git lfs pull"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page: the download failed", "Open the address in a browser"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP", "a picture, not weights", _ALLOWED),
    (rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3", "a video, not weights", _ALLOWED),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\(\xb5/\xfd|7z\xbc\xaf|Rar!|.{257}ustar", "a compressed or tar archive", "Unpack it"),
    (rb"\x08.\x12", "an ONNX model", _TENSORS_ALONE),  # fields 1 and 2 of its protocol buffer
)


@dataclass(frozen=True)
class StoredWeights:
    """What a source of weights holds, as it is stored.

    Attributes:
        source: as the user named it.
        content: of a torch file all that it holds, mostly a dictionary; else the tensors by name.
        metadata: what stands beside the tensors. Of a Hugging Face folder `config.json` and, where there is one,
            `preprocessor_config.json`; of timm's weights `timm`: `architecture`, `mean`, `std`, ...; of a
            safetensors file `timesformer`: the JSON in the header's field of this name.
    """

    source: str
    content: Any
    metadata: dict[str, Any] = field(default_factory=dict)


def is_hub_name(source: str | Path) -> bool:
    """Whether `source` names weights of the hub or of timm rather than a file or folder."""
    return str(source).startswith(("timm:", "hf:"))


def read_source(source: str | Path) -> StoredWeights:
    """Read weights from a file, a Hugging Face folder, the hub (`hf:OWNER/NAME[@REVISION]`) or timm (`timm:NAME`).

    Raises:
        CheckpointError: nothing there, or no weights, or damaged, or code in it, or no network.
    """
    name = str(source)
    if name.startswith("timm:"):
        return _from_timm(name)
    if name.startswith("hf:"):
        return _from_folder(_download(name), name)
    if Path(name).is_dir():
        return _from_folder(Path(name), name)
    content = read_file(name)
    if not _is_safetensors(_head(Path(name))):
        return StoredWeights(name, content)
    with safe_open(name, framework="pt") as file:
        header = (file.metadata() or {}).get("timesformer")
    return StoredWeights(name, content, {"timesformer": _parse(header, name)} if header else {})


def read_file(path: str | Path) -> Any:
    """What one file holds, on the CPU: a file of `torch.save` (either format) or safetensors, told by its content.

    Only tensors and plain values are restored; no code in the file is run. NumPy's numbers become Python's.

    Raises:
        CheckpointError: missing, damaged, of another kind, or with code in it.
    """
    path = Path(path)
    head = _head(path)
    if _is_safetensors(head):
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise _refusal(path, f"a safetensors file that is cut off or damaged ({error})", _FETCH_AGAIN) from error
    if head.startswith(_ZIP):
        _check_zip(path)
    elif not head.startswith(_PICKLE):
        raise _no_weights(path, head)
    try:
        # an open file, for torch goes by some names of files
        with torch.serialization.safe_globals(_PLAIN_VALUES), open(path, "rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types; torch's own text would advise to run the code in the file
        raise _pickle_refusal(path, head, error) from error


class _NumberType:
    """A NumPy dtype as pickles spell it: a code such as `f8`, and the byte order afterwards."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[int, str]) -> None:
        self.code = f"{state[1]}{self.code}"


def _number(kind: _NumberType, data: bytes) -> Any:
    """A NumPy number (a learning rate, an accuracy) as Python's."""
    return np.frombuffer(data, kind.code).item()


# Plain values beyond torch's own that released files hold; numbers are restored by us, not by NumPy's unpickling.
_PLAIN_VALUES: list[Any] = [Namespace, (_NumberType, "numpy.dtype")]
_PLAIN_VALUES += [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # NumPy 1, 2


def _head(path: Path) -> bytes:
    """The first bytes of the file, enough to tell its kind."""
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except FileNotFoundError as error:
        hint = f" There is no folder {path.parent} either."
        if path.parent.is_dir():
            near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3)
            hint = f" Near names in its folder: {', '.join(near)}." if near else ""
        raise CheckpointError(f"{path}: no such file.{hint} {_ALLOWED}.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read as a file ({error.strerror}). {_ALLOWED}.") from error


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000  # the format's limit of its header


def _check_zip(path: Path) -> None:
    """Refuse a zip archive that is not whole, or not of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            # torch.load compares no checksums; where torch.save was told to write none, all are zero
            checked = "data.pkl" in names and any(record.CRC for record in archive.infolist())
            damaged = archive.testzip() if checked else None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise _refusal(path, f"a torch file or zip archive, cut off or damaged ({error})", _FETCH_AGAIN) from error
    if damaged:
        raise _refusal(path, f"a damaged torch file (wrong checksum of {damaged})", _FETCH_AGAIN)
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise _refusal(path, "a TorchScript archive, which is a program", _TENSORS_ALONE)
    if "data.pkl" not in names:
        raise _refusal(path, "a zip archive that torch.save did not write", f"Unpack it. {_ALLOWED}")


def _pickle_refusal(path: Path, head: bytes, error: Exception) -> CheckpointError:
    """The error for a file that torch does not load: what it asks for, or that it is damaged."""
    try:
        names = _names_in_pickles(path, head)
    except (ValueError, EOFError, OSError, struct.error):
        return _refusal(path, "a torch file or other pickle, cut off or damaged", _FETCH_AGAIN)
    if not isinstance(error, UnpicklingError) and (_LEGACY in head or head.startswith(_ZIP)):
        cause = (str(error) or type(error).__name__).splitlines()[0]
        return _refusal(path, f"a torch file, cut off or damaged ({cause})", _FETCH_AGAIN)
    if blocked := re.search(r"GLOBAL (\S+)", str(error)):
        names = [blocked[1]]
    if code := [name for name in names if blocked or not re.match(r"torch\.|collections\.", name)]:
        found = f"refused: it holds code or objects ({', '.join(code[:3])}), and only tensors and plain values are read"
        return _refusal(path, found, _TENSORS_ALONE)
    return _refusal(path, "a pickle of a form that torch.save does not write by itself", _TENSORS_ALONE)


def _names_in_pickles(path: Path, head: bytes) -> list[str]:
    """What the pickles of a file ask Python to import, such as `os.system`; an error where cut off. Nothing is run."""
    names, texts = [], ["", ""]
    with open(path, "rb") as file:
        stream: Any = file
        if head.startswith(_ZIP):
            archive = zipfile.ZipFile(file)
            stream = archive.open(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
        for _ in range(5 if _LEGACY in head else 1):  # magic number, version, system, content, keys of tensors
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    return names


def _no_weights(path: Path, head: bytes) -> CheckpointError:
    """The error for a file that is neither of torch nor safetensors: says what it is instead."""
    for start, kind, advice in _MISTAKES:
        if re.match(start, head, re.DOTALL):
            return _refusal(path, kind, advice)
    text = head.decode("utf-8", errors="ignore")
    if all(letter.isprintable() or letter.isspace() for letter in text) and text.strip():
        return _refusal(path, f"a text file ({text.strip().splitlines()[0][:60]!r})", _ALLOWED)
    return _refusal(path, f"of an unknown kind (it starts with the bytes {head[:8].hex(' ')})", _ALLOWED)


def _refusal(path: Path, found: str, advice: str) -> CheckpointError:
    return CheckpointError(f"{path} is {found}. {advice}.")


def _from_folder(folder: Path, source: str) -> StoredWeights:
    """A Hugging Face folder: `config.json` beside weights in one file, or in several with an index."""
    there = sorted(path.name for path in folder.iterdir())
    weights = next((folder / name for name in _WEIGHTS if name in there), None)
    if weights is None or "config.json" not in there:
        raise CheckpointError(
            f"{source}: a Hugging Face folder has config.json and one of {', '.join(_WEIGHTS)}; "
            f"here there is {', '.join(there[:10]) or 'nothing'}. {_ALLOWED}."
        )
    metadata = {path.name: _parse(path.read_bytes(), path) for path in map(folder.joinpath, _SETTINGS) if path.exists()}
    if "video_preprocessor_config.json" in metadata:
        metadata.setdefault("preprocessor_config.json", metadata.pop("video_preprocessor_config.json"))
    if isinstance(settings := metadata["config.json"].get("pretrained_cfg"), dict):  # timm's models on the hub
        metadata["timm"] = {**settings, "architecture": metadata["config.json"].get("architecture")}
    return StoredWeights(source, _read_parts(weights) if weights.suffix == ".json" else read_file(weights), metadata)


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Tensors of all files that an index names."""
    parts = dict(_parse(index.read_bytes(), index).get("weight_map") or {})
    tensors: dict[str, Tensor] = {}
    for name in sorted({Path(part).name for part in parts.values()}):
        tensors |= read_file(index.parent / name)
    if not parts or parts.keys() - tensors.keys():
        lacking = min(parts.keys() - tensors.keys(), default="weight_map")
        raise CheckpointError(f"{index}: an index of weights, but {lacking} is nowhere. {_FETCH_AGAIN}.")
    return tensors


def _parse(text: str | bytes, place: object) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{place}: no JSON object of names and values ({error}). {_FETCH_AGAIN}.") from error


def _download(source: str) -> Path:
    """The folder of a hub repository in huggingface_hub's cache, brought there where needed."""
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
    return StoredWeights(source, model.state_dict(), {"timm": settings})


def _hub_refusal(source: str, repo: str, error: Exception) -> CheckpointError:
    """The error for weights that huggingface_hub could not bring."""
    from huggingface_hub import constants, errors

    if isinstance(error, (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        why = "the hub has no such hf:OWNER/NAME[@REVISION], or it is private (then: hf auth login)"
    else:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"fetching it failed ({reason})"
        why += f". Where there is a network: hf download {repo}; for another machine, copy that folder and name it"
    return CheckpointError(f"{source}: not wholly in the cache of huggingface_hub, and {why}.")
