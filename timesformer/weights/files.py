"""Read one file of tensors, from `torch.save` or safetensors, without running code in it; or say what it is instead."""

from __future__ import annotations

import difflib
import os
import pickletools
import re
import struct
import zipfile
from argparse import Namespace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from timesformer.utils.errors import CheckpointError
from timesformer.utils.files import not_a_file

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # the first bytes of a file of torch.save, since torch 1.6 and before
_LEGACY = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")  # soon after the latter

ALLOWED = "Allowed are a file of weights, a Hugging Face folder, hf:OWNER/NAME of the hub, or timm:NAME"
FETCH_AGAIN = "Download or copy it again, and compare its size with the original's"
_SAVE_TENSORS = "Where it was made, save the tensors alone: torch.save(model.state_dict(), 'weights.pyth')"

# Files that are confused with weights: how they start, what they are, what to do.
_CONFUSED = (
    (rb"\Z", "empty (0 bytes)", FETCH_AGAIN),
    (rb"version https://git-lfs", "a Git LFS pointer, not the weights themselves", "Fetch them: git lfs pull"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page: the download failed", "Open the address in a browser"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP", "a picture, not weights", ALLOWED),
    (rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3", "a video, not weights", ALLOWED),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\(\xb5/\xfd|7z\xbc\xaf|Rar!|.{257}ustar", "a compressed or tar archive", "Unpack it"),
    (rb"\x08.\x12", "an ONNX model", _SAVE_TENSORS),  # fields 1 and 2 of its protocol buffer
)


def read_file(path: str | Path) -> Any:
    """What one file of `torch.save` (either format) or safetensors holds, on the CPU; its content tells which it is.

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
            raise _refusal(path, f"a safetensors file that is cut off or damaged ({error})", FETCH_AGAIN) from error
    if head.startswith(_ZIP):
        _check_zip(path)
    elif not head.startswith(_PICKLE):
        raise _other_kind(path, head)
    try:
        # an open file, for torch treats some names of files differently
        with torch.serialization.safe_globals(_PLAIN_VALUES), open(path, "rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types; torch's own text would advise to run the code in the file
        raise _pickle_refusal(path, head, error) from error


def safetensors_header(path: str | Path, key: str) -> str | None:
    """A value in the header of a readable safetensors file; None without it, or of another file."""
    if not _is_safetensors(_head(Path(path))):
        return None
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(key)


class _NumberType:
    """A NumPy dtype as pickles spell it: a code such as `f8`, and the byte order afterwards."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[int, str]) -> None:
        self.code = f"{state[1]}{self.code}"


def _number(kind: _NumberType, data: bytes) -> Any:
    """A NumPy number (a learning rate, an accuracy) as Python's."""
    return np.frombuffer(data, kind.code).item()


# Plain values beyond torch's own that released files hold; numbers are restored here, not by NumPy's unpickling.
_PLAIN_VALUES: list[Any] = [Namespace, (_NumberType, "numpy.dtype")]
_PLAIN_VALUES += [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # NumPy 1, 2


def _head(path: Path) -> bytes:
    """The first bytes of the file, enough to tell its kind."""
    if kind := not_a_file(path):
        raise CheckpointError(f"{path}: it is {kind}. {ALLOWED}.")
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except FileNotFoundError as error:
        hint = f" There is no folder {path.parent} either."
        if path.parent.is_dir():
            near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3)
            hint = f" Near names in its folder: {', '.join(near)}." if near else ""
        raise CheckpointError(f"{path}: no such file.{hint} {ALLOWED}.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read as a file ({error.strerror}). {ALLOWED}.") from error


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000  # the format's limit of its header


def _check_zip(path: Path) -> None:
    """Refuse a zip archive that is damaged, or not of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            # torch.load compares no checksums; where torch.save was set to write none, all are zero
            checked = "data.pkl" in names and any(record.CRC for record in archive.infolist())
            damaged = archive.testzip() if checked else None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise _refusal(path, f"a torch file or zip archive, cut off or damaged ({error})", FETCH_AGAIN) from error
    if damaged:
        raise _refusal(path, f"a damaged torch file (wrong checksum of {damaged})", FETCH_AGAIN)
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise _refusal(path, "a TorchScript archive, which is a program", _SAVE_TENSORS)
    if "data.pkl" not in names:
        raise _refusal(path, "a zip archive that torch.save did not write", f"Unpack it. {ALLOWED}")


def _pickle_refusal(path: Path, head: bytes, error: Exception) -> CheckpointError:
    """The error for a file that torch does not load: what it imports, or that it is damaged."""
    try:
        names = _imports(path, head)
    except (ValueError, EOFError, OSError, struct.error):
        return _refusal(path, "a torch file or other pickle, cut off or damaged", FETCH_AGAIN)
    if any(name.startswith("torch.distributed.") for name in names):  # DTensor, ShardedTensor
        return _refusal(path, "one process's part of a model", "Save the full state dict, and give that file")
    if not isinstance(error, UnpicklingError) and (_LEGACY in head or head.startswith(_ZIP)):
        cause = (str(error) or type(error).__name__).splitlines()[0]
        return _refusal(path, f"a torch file, cut off or damaged ({cause})", FETCH_AGAIN)
    blocked = re.search(r"GLOBAL (\S+)", str(error))
    code = [blocked[1]] if blocked else [name for name in names if not name.startswith(("torch.", "collections."))]
    if code:
        found = f"refused: it holds code or objects ({', '.join(code[:3])}), and only tensors and plain values are read"
        return _refusal(path, found, _SAVE_TENSORS)
    return _refusal(path, "a pickle of a form that torch.save does not write by itself", _SAVE_TENSORS)


def _imports(path: Path, head: bytes) -> list[str]:
    """What the pickles of a file import, such as `os.system`; an error where they are cut off. Nothing is run.

    `torch.serialization.get_unsafe_globals_in_checkpoint` does so for zip archives of pickle protocol 2 only.
    """
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


def _other_kind(path: Path, head: bytes) -> CheckpointError:
    """The error for a file that is neither of torch nor safetensors: says what it is instead."""
    for start, kind, advice in _CONFUSED:
        if re.match(start, head, re.DOTALL):
            return _refusal(path, kind, advice)
    text = head.decode("utf-8", errors="ignore")
    if all(letter.isprintable() or letter.isspace() for letter in text) and text.strip():
        return _refusal(path, f"a text file ({text.strip().splitlines()[0][:60]!r})", ALLOWED)
    return _refusal(path, f"of an unknown kind (it starts with the bytes {head[:8].hex(' ')})", ALLOWED)


def _refusal(path: Path, found: str, advice: str) -> CheckpointError:
    return CheckpointError(f"{path} is {found}. {advice}.")
