"""Every source of weights is read as it is stored; everything else gets one sentence that says what to do."""

from __future__ import annotations

import io
import json
import os
import pickle
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
from torch import Tensor

from timesformer.models.weight_files import read_file, read_source
from timesformer.utils.errors import CheckpointError

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Code:
    """Unpickled by the ordinary unpickler, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def tensors() -> dict[str, Tensor]:
    return {"norm.weight": torch.randn(300), "head.bias": torch.randn(7)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def refusal(source: str | Path) -> str:
    """What the one error says, apart from the path."""
    with pytest.raises(CheckpointError) as error:
        read_source(source)
    message = str(error.value)
    assert message.startswith(str(source)) and "\n" not in message
    assert "weights_only" not in message  # torch's advice is to run what is in the file
    return message.removeprefix(str(source))


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
    assert "is a damaged torch file (wrong checksum of" in refusal(tmp_path / "w.pyth")


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


def hugging_face_folder(folder: Path, *, preprocessor: str = "preprocessor_config.json") -> dict[str, Tensor]:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "timesformer"}))
    (folder / preprocessor).write_text(json.dumps({"image_mean": [0.45, 0.45, 0.45]}))
    state = tensors()
    save_file(state, folder / "model.safetensors")
    return state


@pytest.mark.parametrize("preprocessor", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_a_hugging_face_folder(tmp_path: Path, preprocessor: str) -> None:
    state = hugging_face_folder(tmp_path / "f", preprocessor=preprocessor)
    stored = read_source(tmp_path / "f")
    assert stored.source == str(tmp_path / "f") and same(stored.content, state)
    assert stored.metadata == {
        "config.json": {"model_type": "timesformer"},
        "preprocessor_config.json": {"image_mean": [0.45, 0.45, 0.45]},
    }
    (tmp_path / "f" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "f" / "pytorch_model.bin")
    assert same(read_source(tmp_path / "f").content, state)
    (tmp_path / "f" / "config.json").write_text("{")
    assert "no JSON object of names and values" in refusal(tmp_path / "f")


def test_a_folder_of_weights_in_parts(tmp_path: Path) -> None:
    state = hugging_face_folder(tmp_path / "f")
    (tmp_path / "f" / "model.safetensors").unlink()
    parts = {name: f"model-{i}.safetensors" for i, name in enumerate(state)}
    for name, part in parts.items():
        save_file({name: state[name]}, tmp_path / "f" / part)
    index = tmp_path / "f" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    assert same(read_source(tmp_path / "f").content, state)
    index.write_text(json.dumps({"weight_map": {**parts, "gone": "model-0.safetensors"}}))
    assert "an index of weights, but gone is nowhere" in refusal(tmp_path / "f")
    index.write_text(json.dumps({"weight_map": {**parts, "gone": "model-7.safetensors"}}))
    assert "model-7.safetensors: no such file. Near names" in refusal(tmp_path / "f")
    index.write_text("{}")
    assert "an index of weights, but weight_map is nowhere" in refusal(tmp_path / "f")


def test_other_folders(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").touch()
    message = refusal(tmp_path)
    assert "a Hugging Face folder has config.json and one of model.safetensors" in message
    assert "here there is checkpoints, config.yaml. Allowed are a file of weights" in message
    with pytest.raises(CheckpointError, match="cannot be read as a file"):
        read_file(tmp_path)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub, which cannot reach the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache: Path, repository: str) -> Path:
    """The folder of the only revision of a repository in the cache; not yet made."""
    repository_folder = cache / f"models--{repository.replace('/', '--')}"
    (repository_folder / "refs").mkdir(parents=True)
    (repository_folder / "refs" / "main").write_text(REVISION)
    return repository_folder / "snapshots" / REVISION


@pytest.mark.parametrize("source", ["hf:someone/clips", "hf:someone/clips@main", f"hf:someone/clips@{REVISION}"])
def test_a_repository_of_the_hub_from_the_cache(hub_cache: Path, source: str) -> None:
    state = hugging_face_folder(cached(hub_cache, "someone/clips"))
    stored = read_source(source)
    assert stored.source == source and same(stored.content, state)
    assert stored.metadata["config.json"] == {"model_type": "timesformer"}


def test_a_repository_with_a_torch_file_only(hub_cache: Path) -> None:
    folder = cached(hub_cache, "someone/clips")
    state = hugging_face_folder(folder)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert same(read_source("hf:someone/clips").content, state)


def test_the_hub_when_offline(hub_cache: Path) -> None:
    message = refusal("hf:someone/clips")
    assert "not wholly in the cache of huggingface_hub, and HF_HUB_OFFLINE is set" in message
    assert "Where there is a network: hf download someone/clips; for another machine, copy that folder" in message
    assert "the hub has no such hf:OWNER/NAME[@REVISION]" in refusal("hf:a/b/c")


def test_what_the_hub_answers(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def hub(answer: type[Exception], text: str) -> str:
        error = answer.__new__(answer, text)  # an error of the hub is otherwise made from its response

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        return refusal("hf:someone/clips")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for answer in (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.RevisionNotFoundError):
        assert "has no such hf:OWNER/NAME[@REVISION], or it is private (then: hf auth login)" in hub(answer, "")
    assert "fetching it failed (no route). Where there is a network: hf download" in hub(OSError, "no route\nto host")


@pytest.mark.parametrize("name", ["test_vit", "test_vit.r160_in1k"])
def test_timm_weights_from_the_cache(hub_cache: Path, name: str) -> None:
    import timm

    model = timm.create_model("test_vit")
    folder = cached(hub_cache, "timm/test_vit.r160_in1k")
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    before = torch.get_rng_state()
    stored = read_source(f"timm:{name}")
    assert same(stored.content, model.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    settings = stored.metadata["timm"]
    assert settings["architecture"] == "test_vit" and settings["mean"] == [0.5, 0.5, 0.5] == settings["std"]
    config = {"architecture": "test_vit", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}
    (folder / "config.json").write_text(json.dumps(config))
    stored = read_source(folder)
    assert same(stored.content, model.state_dict())
    assert stored.metadata["timm"] == {"mean": [0.5, 0.5, 0.5], "architecture": "test_vit"}


def test_timm_names_and_no_network(hub_cache: Path) -> None:
    assert "near names: vit_base_patch16_224," in refusal("timm:vit_bse_patch16_224").lower()
    assert "no pretrained weights of this name" in refusal("timm:vit_base_patch16_224.no_such_tag")
    message = refusal("timm:test_vit")
    assert "HF_HUB_OFFLINE is set" in message and "hf download timm/test_vit.r160_in1k" in message
