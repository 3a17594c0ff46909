"""Every file of tensors is read as it is stored; everything else gets one sentence that says what to do."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from tests.models.small_models import refusal, same, tensors
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import CheckpointError, DamagedFileError
from timesformer.weights import files
from timesformer.weights.files import read_file
from timesformer.weights.layouts import read_weights
from timesformer.weights.save import save_weights
from timesformer.weights.sources import read_source


class Code:
    """Unpickled by the ordinary unpickler, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["w.pyth", "w.safetensors", "w"])
def test_torch_files_of_either_format_whatever_their_name(tmp_path: Path, name: str, zipped: bool) -> None:
    content = {"model_state": tensors(), "epoch": 3, "cfg": "text", "betas": (0.9, 0.99), "best": None}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    stored = read_source(tmp_path / name)
    assert stored.source == str(tmp_path / name) and stored.metadata == {}
    assert same(stored.content.pop("model_state"), content.pop("model_state")) and stored.content == content


@pytest.mark.parametrize("name", ["w.safetensors", "w.pyth"])
def test_safetensors_with_and_without_our_header(tmp_path: Path, name: str) -> None:
    state = tensors()
    save_file(state, tmp_path / name, metadata={"format": "pt", "timesformer": json.dumps({"class_names": ["a"]})})
    stored = read_source(tmp_path / name)
    assert same(stored.content, state) and stored.metadata == {"timesformer": {"class_names": ["a"]}}
    save_file(state, tmp_path / name)
    assert read_source(str(tmp_path / name)).metadata == {}
    save_file(state, tmp_path / name, metadata={"timesformer": "{"})
    assert "no JSON object of names and values" in refusal(tmp_path / name)


def test_plain_values_that_released_files_hold(tmp_path: Path) -> None:
    numbers = {"lr": np.float64(0.005), "top1": np.float32(0.5), "epoch": np.int64(-4), "best": np.bool_(True)}
    numbers["big_endian"] = np.dtype(">i4").type(7)
    torch.save({"args": Namespace(lr=0.1, layers=[1, 2]), **numbers}, tmp_path / "w.pyth")
    read = read_file(tmp_path / "w.pyth")
    assert read.pop("args") == Namespace(lr=0.1, layers=[1, 2])
    assert read == {"lr": 0.005, "top1": 0.5, "epoch": -4, "best": True, "big_endian": 7}
    assert [type(value) for value in read.values()] == [float, float, int, bool, int]


def test_numbers_of_an_older_numpy(tmp_path: Path) -> None:
    with_old_name = pickle.dumps(np.float64(0.25), 2).replace(b"numpy._core.", b"numpy.core.")
    buffer = io.BytesIO()
    for value in (torch.serialization.MAGIC_NUMBER, 1001, {}):
        pickle.dump(value, buffer, 2)
    (tmp_path / "w.pyth").write_bytes(buffer.getvalue() + with_old_name + pickle.dumps([], 2))
    assert read_file(tmp_path / "w.pyth") == 0.25


@pytest.mark.parametrize("kind", ["O", "V8", "f8,O"])
def test_only_numbers_are_restored_from_numpy(tmp_path: Path, kind: str) -> None:
    forged = pickle.dumps(np.float64(0.25), 2).replace(
        b"X\x02\0\0\0f8", b"X" + len(kind).to_bytes(4, "little") + kind.encode()
    )
    content = io.BytesIO()
    torch.save({"lr": np.float64(0.25)}, content)
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(tmp_path / "w.pyth", "w") as new:
        for name in old.namelist():
            new.writestr(name, forged if name.endswith("data.pkl") else old.read(name))
    if kind != "V8":
        refusal(tmp_path / "w.pyth")
    else:
        assert isinstance(read_file(tmp_path / "w.pyth"), bytes)


# What a file is that holds no weights, and what the error says of it.
NO_WEIGHTS = {
    "nothing": (b"", "is empty (0 bytes). Download or copy it again"),
    "text": (b"top1 72.5\nsecond line\n", "is a text file ('top1 72.5'). Allowed are a file of weights, a Hugging"),
    "JSON": (b'{"weight_map": {}}', "is a text file"),
    "HTML": (b"\n<!DOCTYPE html>\n<html>404", "is a web page: the download failed. Open the address in a browser"),
    "XML": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page: the download failed"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
    "AVI": (b"RIFF\x10\x27\0\0AVI LIST" + bytes(64), "is a video, not weights"),
    "MP4": (b"\0\0\0\x20ftypisom" + bytes(64), "is a video, not weights"),
    "WebM": (b"\x1aE\xdf\xa3" + bytes(64), "is a video, not weights"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a picture, not weights"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(64), "is a picture, not weights"),
    "gzip": (b"\x1f\x8b" + bytes(64), "is a compressed or tar archive. Unpack it"),
    "ONNX": (b"\x08\x08\x12\x07pytorch" + bytes(64), "is an ONNX model", "torch.save(model.state_dict(), "),
    "unknown": (b"\x01\x02\x03\x04\xff\xfe\0\0", "of an unknown kind", "starts with the bytes 01 02 03 04 ff fe 00 00"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["w.pyth", "w.safetensors"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_files_that_hold_no_weights(tmp_path: Path, kind: str, name: str) -> None:
    content, *said = NO_WEIGHTS[kind]
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert all(words in message for words in said), message


def test_archives_that_torch_save_did_not_write(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    np.savez(tmp_path / "w.npz", a=np.ones(3))
    for name in ("clips.zip", "w.npz"):
        assert "is a zip archive that torch.save did not write. Unpack it" in refusal(tmp_path / name)
    with tarfile.open(tmp_path / "w.pth.tar", "w") as tar:
        tar.add(tmp_path / "w.npz", arcname="w.npz")
    assert "is a compressed or tar archive. Unpack it" in refusal(tmp_path / "w.pth.tar")


def test_a_torchscript_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"w/{name}", b"3")
    message = refusal(tmp_path / "w.pt")
    assert "TorchScript" in message and "torch.save(model.state_dict(), " in message


def dump(content: object, path: Path, form: str) -> None:
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    elif form == "plain pickle, protocol 2":
        path.write_bytes(pickle.dumps(content, 2))
    else:
        protocol = 4 if form.endswith("4") else 2
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form.startswith("zip"))


FORMS = ["zip", "zip, protocol 4", "legacy", "legacy, protocol 4", "plain pickle", "plain pickle, protocol 2"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_brings_code_is_refused_and_named(tmp_path: Path, form: str) -> None:
    dump({"model": Code(tmp_path / "made")}, tmp_path / "w.pyth", form)
    message = refusal(tmp_path / "w.pyth")
    assert f"holds code or objects ({os.mkdir.__module__}.mkdir)" in message  # posix.mkdir, nt.mkdir
    assert "torch.save(model.state_dict(), 'weights.pyth')" in message
    assert not (tmp_path / "made").exists()


def test_whole_models_and_other_objects_are_named(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    torch.save({"state": np.ones(3)}, tmp_path / "arrays.pt")
    assert "(torch.nn.modules.linear.Linear)" in refusal(tmp_path / "model.pt")
    assert "multiarray._reconstruct)" in refusal(tmp_path / "arrays.pt")


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("imported", [True, False])
def test_one_process_s_part_of_a_model(tmp_path: Path, form: str, imported: bool) -> None:
    """The same words whether or not torch.distributed.tensor, which teaches torch.load its type, is imported."""
    make = f"""
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
whole = torch.ones(4)
part = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [Shard(0)])
torch.save({{"model": {{"norm.bias": part}}}}, "w.pyth", _use_new_zipfile_serialization={form == "zip"})
"""
    read = f"""
{"import torch.distributed.tensor" if imported else ""}
from timesformer.weights.layouts import read_weights
from timesformer.utils.errors import exit_status
exit_status(lambda: read_weights("w.pyth"))
"""
    root = str(Path(__file__).parents[2])
    for code in (make, read):
        environment = os.environ | {"PYTHONPATH": root}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True)
    message = done.stderr.decode()
    assert "one process's part of a model" in message and "Save the full state dict" in message, message


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_of_plain_values_that_torch_does_not_read(tmp_path: Path) -> None:
    for form in ("plain pickle", "plain pickle, protocol 2", "zip, protocol 4"):
        dump({"lr": 0.5}, tmp_path / "w.pkl", form)
        assert "is a pickle of a form that torch.save does not write by itself" in refusal(tmp_path / "w.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_cut_off_anywhere(tmp_path: Path, zipped: bool) -> None:
    torch.save({"model_state": tensors(), "lr": np.float64(0.1)}, tmp_path / "w", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "w").read_bytes()
    assert read_file(tmp_path / "w")["lr"] == 0.1
    for size in [*range(4, 700, 3), *range(700, len(whole) - 1, 97), len(whole) - 1]:
        (tmp_path / "w.pyth").write_bytes(whole[:size])
        message = refusal(tmp_path / "w.pyth")
        assert "cut off or damaged" in message and "Download or copy it again" in message, (size, message)


def test_cut_off_safetensors(tmp_path: Path) -> None:
    whole = save(tensors())
    for size in (9, 40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.pyth").write_bytes(whole[:size])
        assert "is a safetensors file that is cut off or damaged" in refusal(tmp_path / "w.pyth")


def test_one_wrong_byte_among_the_tensors_is_found(tmp_path: Path) -> None:
    torch.save({"model_state": {"weight": torch.zeros(4096)}}, tmp_path / "w.pyth")
    content = bytearray((tmp_path / "w.pyth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "w.pyth").write_bytes(content)
    assert "cut off or damaged (wrong checksum of w/data/" in refusal(tmp_path / "w.pyth")


def test_files_saved_without_checksums_are_read(tmp_path: Path) -> None:
    state = tensors()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "w.pyth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_file(tmp_path / "w.pyth"), state)


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"\x20\0\0\0\0\0\0\0{"]), rest=st.binary()
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start + rest)
    with pytest.raises(CheckpointError):
        read_source(path)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "TimeSformer_divST_8x32_224_K400.pyth").touch()
    message = refusal(tmp_path / "TimeSformer_divST_8x32_224_K600.pyth")
    assert "no such file. Near names in its folder: TimeSformer_divST_8x32_224_K400.pyth. Allowed are" in message
    assert "hf:OWNER/NAME of the hub, or timm:NAME" in message
    assert f"no such file. There is no folder {tmp_path / 'no'} either." in refusal(tmp_path / "no" / "w.pyth")
    assert ": no such file. Allowed" in refusal(tmp_path / "zzz")


STATE = {"model_state": {"a.weight": torch.arange(64.0).reshape(8, 8), "b": torch.ones(5)}, "epoch": 3}


def patched(path: Path, position: int, content: bytes) -> None:
    """`STATE` as a torch file, with other bytes at `position` of its last directory record but one, or from the end."""
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    start = position + (data.rindex(b"PK\x01\x02") if position >= 0 else len(data))
    data[start : start + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("position", "content"),
    [
        (38, b"\x10"),  # attribute of a folder: torch reads nothing, and takes what the memory holds
        (8, b"\x01\x08"),  # encrypted
        (8, b"\x28\x08"),  # a patch of another file
        (10, b"\x08\x00"),  # compressed
        (10, b"\x63\x00"),  # by an unknown method
        (16, b"\0\0\0\0"),  # no checksum
        (24, b"\xff\xff\xff\x7f"),  # a size beyond the file
        (42, b"\xff\xff\xff\x7f"),  # a place beyond the file
        (46, b"\xff"),  # another name
        (-22, b"\0"),  # no end of the directory
    ],
)
def test_records_that_torch_does_not_write_are_damage(tmp_path: Path, position: int, content: bytes) -> None:
    patched(tmp_path / "w.pyth", position, content)
    with pytest.raises(DamagedFileError, match="cut off or damaged"):
        read_file(tmp_path / "w.pyth")


def test_no_flipped_bit_of_the_directory_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pyth"
    torch.save(STATE, path)
    data = path.read_bytes()
    start, refused = data.rindex(b"PK\x01\x02"), 0
    for position in range(start, len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            read = read_file(path)
        except DamagedFileError:
            refused += 1
        else:
            assert same(read["model_state"], STATE["model_state"]) and read["epoch"] == 3
    assert refused > 60


class Unreadable(io.FileIO):
    """A file whose disk fails."""

    def read(self, *_: object) -> bytes:  # type: ignore[override]
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    readinto = readall = read  # type: ignore[assignment]


@pytest.mark.parametrize("content", [STATE, STATE["model_state"]])
def test_what_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict
) -> None:
    path = tmp_path / "w.pyth"
    torch.save(content, path, _use_new_zipfile_serialization="epoch" in content)
    head = files._head(path)
    monkeypatch.setattr(files, "_head", lambda path: head)
    monkeypatch.setattr(files, "open", Unreadable, raising=False)
    with pytest.raises(CheckpointError, match="could not be read .Input/output error.*left as it is") as error:
        read_file(path)
    assert not isinstance(error.value, DamagedFileError)
    monkeypatch.undo()
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(CheckpointError, match="not enough memory") as error:
        read_file(path)
    assert not isinstance(error.value, DamagedFileError)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_claim_more_than_the_file_stores(tmp_path: Path, zipped: bool) -> None:
    for shape in ((100_000, 100_000), (1000,)):  # a constant of 40 GB, and one that people do save
        torch.save({"a": torch.zeros(4)[:1].expand(shape)}, tmp_path / "w", _use_new_zipfile_serialization=zipped)
        if len(shape) == 1:
            assert read_file(tmp_path / "w")["a"].shape == shape
        else:
            assert "tensors claim 40,000,000,0" in refusal(tmp_path / "w")


def test_zip_bombs_are_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02.")
        with archive.open("w/data/0", "w", force_zip64=True) as record:
            for _ in range(64):
                record.write(bytes(2**20))
    assert "w/data.pkl is not as torch.save writes it" in refusal(tmp_path / "w")


def test_a_changed_bit_of_our_safetensors_is_found(tmp_path: Path) -> None:
    model = TimeSformer(img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2, num_classes=3, num_frames=2)
    torch.save({"model_state": model.state_dict(), "class_names": ["a", "b", "c"]}, tmp_path / "w.pyth")
    path = tmp_path / "w.safetensors"
    save_weights(read_weights(tmp_path / "w.pyth"), path, to="safetensors")
    assert same(read_file(path), model.state_dict())
    data = path.read_bytes()
    for position in (data.index(b'\\"a\\"') + 2, len(data) // 2, len(data) - 2):  # a class's name, values
        flipped = bytearray(data)
        flipped[position] ^= 2
        path.write_bytes(flipped)
        assert "damaged safetensors file (wrong checksum)" in refusal(path)
