"""Folders, the hub and timm: what stands beside the weights is read too, and what is not there is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.small_models import refusal, same, tensors
from timesformer.utils.errors import CheckpointError
from timesformer.weights.files import read_file
from timesformer.weights.sources import can_be_had, read_source

REVISION = "0123456789abcdef0123456789abcdef01234567"


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
    index.write_text(json.dumps({"weight_map": ["model-0.safetensors"]}))
    assert "an index of weights, but weight_map is nowhere" in refusal(tmp_path / "f")
    index.write_text("{}")
    assert "an index of weights, but weight_map is nowhere" in refusal(tmp_path / "f")


def test_other_folders(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").touch()
    message = refusal(tmp_path)
    assert "a Hugging Face folder has config.json and one of model.safetensors" in message
    assert "here there is checkpoints, config.yaml. Allowed are a file of weights" in message
    with pytest.raises(CheckpointError, match="it is a folder, not a file"):
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
    assert "not completely in the cache of huggingface_hub, and HF_HUB_OFFLINE is set" in message
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
    assert settings["num_heads"] == model.blocks[0].attn.num_heads == 2
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


def test_what_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pyth").touch()
    assert can_be_had("gestures") and can_be_had(str(tmp_path / "w.pyth")) and not can_be_had(str(tmp_path / "gone"))
    asked = []

    def on_hub(repo: str, name: str, revision: str | None) -> bool:
        asked.append(repo)
        if repo == "no/network":
            raise OSError
        return name == "model.safetensors"

    monkeypatch.setattr("huggingface_hub.file_exists", on_hub)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name, revision: tmp_path.as_posix())
    assert can_be_had("hf:some/model@v1") and not asked  # cached
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name, revision: None)
    assert can_be_had("timm:vit_base_patch16_224.augreg_in21k_ft_in1k") and not can_be_had("hf:no/network")
    assert {*asked} == {"timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "no/network"}
