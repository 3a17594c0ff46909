"""Read one file of tensors, from `torch.save` or safetensors, without running code in it; or say what it is instead."""

from __future__ import annotations

import difflib
import errno
import os
import pickletools
import re
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from timesformer.utils.errors import CheckpointError, DamagedFileError

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # the first bytes of a file of torch.save, since torch 1.6 and before
_LEGACY = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")  # soon after the latter

CHECKSUM = "timesformer_crc32"  # in the header of the safetensors files that this project writes
_PLAIN_FLAGS = 0x8 | 0x800  # of a zip record: sizes follow the data, the name is UTF-8; neither changes what is read
_DOS_FOLDER = 0x10  # attribute of a zip record, of which torch.load then reads nothing
_MAX_EXPANDED = 2**24  # bytes that tensors of a file may have beyond what is stored (of expanded constants)

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
        DamagedFileError: its bytes are proven damaged.
        CheckpointError: missing, not readable now, of another kind, or with code in it.
    """
    path = Path(path)
    head = _head(path)
    try:
        if _is_safetensors(head):
            return _read_safetensors(path)
        if not head.startswith((_ZIP, _PICKLE)):
            raise _other_kind(path, head)
        with open(path, "rb") as stream:  # an open file, for torch treats some names of files differently
            limit = _check_zip(path, stream) if head.startswith(_ZIP) else path.stat().st_size
            return _read_torch(path, head, stream, limit)
    except (OSError, MemoryError) as error:
        cause = getattr(error, "strerror", None) or "not enough memory"
        raise CheckpointError(
            f"{path} could not be read ({cause}), which says nothing of the file: it was left as it is. "
            "Check the disk, the mount and the free memory, then repeat the command."
        ) from error


def checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of names, types, shapes and values, and of the texts of a safetensors header besides `CHECKSUM`."""
    texts = sorted((key, text) for key, text in metadata.items() if key != CHECKSUM)
    crc = zlib.crc32(repr(texts).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; their sizes are checked against the file's by the library."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise _damage(path, f"a safetensors file that is cut off or damaged ({error})") from error
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(tensors, metadata):
        raise _damage(path, "a damaged safetensors file (wrong checksum)")
    return tensors


def _read_torch(path: Path, head: bytes, stream: IO[bytes], limit: int) -> Any:
    """What a torch file holds, whose tensors have `limit` bytes at most."""
    try:
        with torch.serialization.safe_globals(_PLAIN_VALUES):
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of many types; torch's own text would advise to run the code in the file
        if "allocate memory" in str(error):  # a RuntimeError of torch's allocator
            raise MemoryError from error
        raise _pickle_refusal(path, head, error) from error
    pairs = [(tensor.numel() * tensor.element_size(), tensor.untyped_storage()) for tensor in _tensors_in(content)]
    stored = sum({storage.data_ptr(): storage.nbytes() for _, storage in pairs}.values())
    claimed = stored + sum(size for size, storage in pairs if size > storage.nbytes())
    if claimed > limit + _MAX_EXPANDED:
        found = f"a file whose tensors claim {claimed:,} bytes, where {limit:,} are stored"
        raise _refusal(path, found, _SAVE_TENSORS)
    return content


def _tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """Every plain tensor in nested containers, each once."""
    todo, seen = [content], set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if type(each) in (torch.Tensor, torch.nn.Parameter) and each.layout is torch.strided and not each.is_meta:
            yield each
        elif isinstance(each, Mapping):
            todo += each.values()
        elif isinstance(each, (list, tuple)):
            todo += each
        elif isinstance(each, Namespace):
            todo.append(vars(each))


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


def _check_zip(path: Path, stream: IO[bytes]) -> int:
    """Refuse a zip archive that is damaged, or not of `torch.save`; the bytes of its records.

    Zip readers differ in what they believe of a record. Refused is what they could read differently, before it is read.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            records = archive.infolist()
            for record in records:
                archive.open(record).close()  # compares the directory with the record's own header
            names = [record.filename.partition("/")[2] for record in records]
            if any(name == "constants.pkl" or name.startswith("code/") for name in names):
                raise _refusal(path, "a TorchScript archive, which is a program", _SAVE_TENSORS)
            if "data.pkl" not in names:
                raise _refusal(path, "a zip archive that torch.save did not write", f"Unpack it. {ALLOWED}")
            num_bytes = sum(record.file_size for record in records)
            odd = next((record.filename for record in records if not _is_plain(record)), None)
            if odd or len(set(names)) < len(names) or num_bytes > path.stat().st_size:
                raise zipfile.BadZipFile(f"{odd or 'its directory'} is not as torch.save writes it")
            # torch.load compares no checksums; where torch.save was set to write none, all are zero
            checked = any(record.CRC for record in records)
            if wrong := archive.testzip() if checked else None:
                raise zipfile.BadZipFile(f"wrong checksum of {wrong}")
    except CheckpointError:
        raise
    except Exception as error:  # of many types; whatever a check stumbles over is damage, unless nothing could be read
        for cause in (error, error.__context__):  # zipfile calls a disk that fails "not a zip file"
            if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno != errno.EINVAL):
                raise cause from None
        raise _damage(path, f"a torch file or zip archive, cut off or damaged ({error})") from error
    stream.seek(0)
    return num_bytes


def _is_plain(record: zipfile.ZipInfo) -> bool:
    """Whether a record is a file, stored as it is, as torch writes them."""
    stored = record.compress_type == zipfile.ZIP_STORED and record.compress_size == record.file_size
    is_folder = record.is_dir() or record.external_attr & _DOS_FOLDER
    return stored and not is_folder and not record.flag_bits & ~_PLAIN_FLAGS


def _pickle_refusal(path: Path, head: bytes, error: Exception) -> CheckpointError:
    """The error for a file that torch does not load: what it imports, or that it is damaged."""
    try:
        names = _imports(path, head)
    except (OSError, MemoryError):
        raise
    except Exception:  # of many types, for any bytes can be there
        return _damage(path, "a torch file or other pickle, cut off or damaged")
    if any(name.startswith("torch.distributed.") for name in names):  # DTensor, ShardedTensor
        return _refusal(path, "one process's part of a model", "Save the full state dict, and give that file")
    if not isinstance(error, UnpicklingError) and (_LEGACY in head or head.startswith(_ZIP)):
        cause = (str(error) or type(error).__name__).splitlines()[0]
        return _damage(path, f"a torch file, cut off or damaged ({cause})")
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
    if head and _ZIP.startswith(head):
        return _damage(path, f"a torch file or zip archive, cut off after {len(head)} bytes")
    for start, kind, advice in _CONFUSED:
        if re.match(start, head, re.DOTALL):
            return _refusal(path, kind, advice) if head else _damage(path, kind)
    text = head.decode("utf-8", errors="ignore")
    if all(letter.isprintable() or letter.isspace() for letter in text) and text.strip():
        return _refusal(path, f"a text file ({text.strip().splitlines()[0][:60]!r})", ALLOWED)
    found = f"of an unknown kind (it starts with the bytes {head[:8].hex(' ')})"
    return DamagedFileError(f"{path} is {found}. {ALLOWED}.")


def _refusal(path: Path, found: str, advice: str) -> CheckpointError:
    return CheckpointError(f"{path} is {found}. {advice}.")


def _damage(path: Path, found: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is {found}. {FETCH_AGAIN}.")
