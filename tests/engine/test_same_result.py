"""One result for every number of processes and every cut into micro-batches: training and evaluation, real clips."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from timesformer.config.load import LoadedConfig
from timesformer.datasets.build import build_eval_dataset, build_mixer, build_train_dataset, load_list
from timesformer.datasets.loader import EvalLoader, TrainLoader
from timesformer.datasets.records import VideoList
from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import full_state, parallelize
from timesformer.engine.setup import load_run_config
from timesformer.engine.step import TrainStep
from timesformer.evaluation.evaluate import Predictions, evaluate
from timesformer.models.build import build_model
from timesformer.optim.build import build_optimizer, build_schedule
from timesformer.video.clip_spec import ClipSpec, Views
from tools import run_net

ROOT = Path(__file__).parents[2]
NUM_CLIPS = 24
AUGMENTED = {
    "MIXUP.ENABLED": True,
    "DATA.AUTO_AUGMENT": "rand-m7-n2-mstd0.5",
    "DATA.COLOR_JITTER": 0.3,
    "DATA.RE_PROB": 0.5,
    "AUG.SHIFT": 0.1,
    "AUG.ZOOM": "[0.8,1.25]",
    "AUG.PERSPECTIVE": 0.05,
    "AUG.NOISE": 0.05,
    "AUG.BLUR": 1.0,
    "AUG.JPEG_QUALITY": 40,
    "AUG.SPEED": 0.3,
    "DATA.RANDOM_FLIP": True,
    "DATA.FLIP_LABEL_MAP": "[[2,3],[4,5],[6,7],[8,9],[10,11]]",
    "SOLVER.OPTIMIZING_METHOD": "sgd",
    "SOLVER.BASE_LR": 0.1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "TEST.NUM_ENSEMBLE_VIEWS": 2,
    "DATA.SAMPLING_RATE": 4,
}


@dataclass(frozen=True)
class Case:
    """An epoch of 24 clips; `one` and `two` are the most clips of a forward pass, of one process and of each of two."""

    global_batch: int
    one: tuple[int, ...]  # the first takes every step whole: what the others are compared with
    two: tuple[int, ...]
    unreadable: tuple[int, ...] = ()


CASES = {
    "1 x 8, 1 x 2 x 4, 2 x 4, 2 x 2 x 2": Case(8, (8, 2), (4, 2)),
    "uneven micro-batches, 24 + 24 + 16 in quarters": Case(16, (16, 6), (6,)),
    "steps that part mixup partners": Case(7, (7, 3), (3,)),
    "an end of the epoch with one clip for two processes": Case(23, (23,), (8,)),
    "clips that cannot be read": Case(8, (8, 3), (3,), unreadable=(5, 10, 11)),
}


def configured(words: list[str]) -> LoadedConfig:
    overrides = [str(word) for pair in AUGMENTED.items() for word in pair]
    return load_run_config(str(ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"), [*words, *overrides])


def without(videos: VideoList, unreadable: tuple[int, ...]) -> VideoList:
    """The list, with files that do not exist at some places."""
    records = [replace(r, path=f"{r.path}.lost") if i in unreadable else r for i, r in enumerate(videos.records)]
    return replace(videos, records=records)


def train(
    words: list[str], case: Case, micro_batch: int, strategy: str = "ddp"
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights after an epoch, and every step's gradient norm; the stem stays frozen."""
    cfg, ranks = configured(words).cfg, {"rank": distributed.rank(), "world_size": distributed.world_size()}
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("patch_embed" not in name)
    wrapped = parallelize(model, strategy=strategy, device=torch.device("cpu"), world_size=ranks["world_size"])
    dataset = build_train_dataset(cfg, without(load_list(cfg, "train"), case.unreadable))
    assert len(dataset) == NUM_CLIPS
    loader = TrainLoader(dataset, global_batch=case.global_batch, micro_batch=micro_batch, pairs=True, **ranks)
    schedule = build_schedule(cfg)
    take_step = TrainStep(
        wrapped,
        build_optimizer(model, cfg),
        device=torch.device("cpu"),
        dtype=None,
        normalize=ClipSpec.from_config(cfg).normalize,
        clip_shape=(3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE),
        num_classes=cfg.MODEL.NUM_CLASSES,
        loss=cfg.MODEL.LOSS_FUNC,
        label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
        clip_grad_norm=cfg.SOLVER.CLIP_GRAD_NORM,
        mixer=build_mixer(cfg),
    )
    model.train()
    norms = []
    for i, (step, batches) in enumerate(loader):
        lr = schedule(i / len(loader))
        result = take_step(batches, num_samples=step.num_samples, epoch=0, lr=lr, global_step=i)
        norms.append(float(result.grad_norm))
    return full_state(model.state_dict()), norms


def predict(words: list[str], *, num_videos: int, videos_per_batch: int) -> Predictions:
    """Scores of the first videos of the test list, two clips by three crops each; the third cannot be read."""
    cfg = configured([*words, "TEST.BATCH_SIZE", str(2 * videos_per_batch)]).cfg
    videos = without(load_list(cfg, "test"), (2,))
    torch.manual_seed(1)
    rank, world_size = distributed.rank(), distributed.world_size()
    views = Views.from_config(cfg)
    dataset = build_eval_dataset(cfg, replace(videos, records=videos.records[:num_videos]), views=views)
    loader = EvalLoader(dataset, videos_per_batch=videos_per_batch, rank=rank, world_size=world_size)
    return evaluate(build_model(cfg), loader, spec=dataset.spec)


EVALUATIONS = [{"num_videos": n, "videos_per_batch": size} for n, size in ((12, 12), (12, 1), (11, 5), (1, 4))]


def everything(words: list[str]) -> dict[str, Any]:
    """All that the tests compare, as the processes of this group compute it."""
    ways = ("ddp", "fsdp") if dist.is_initialized() else ("alone",)
    trained = {
        (name, size, way): train(words, case, size, way)
        for name, case in CASES.items()
        for size in (case.two if dist.is_initialized() else case.one)
        for way in ways
    }
    return {"trained": trained, "predicted": [predict(words, **settings) for settings in EVALUATIONS]}


def one_of_two_processes(rank: int, words: list[str], folder: str) -> None:
    """Compute everything in a group of two."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(everything(words), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(gestures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By process: "one" alone, "first" and "second" of a group of two."""
    settings = {
        "DATA.PATH_TO_DATA_DIR": gestures_dir,
        "GESTURES.NUM_SUBJECTS": "[2, 1, 1]",
        "GESTURES.FRAME_SIZE": "[48, 48]",
        "TIMESFORMER.EMBED_DIM": 24,
        "TIMESFORMER.DEPTH": 2,
        "DATA.NUM_FRAMES": 4,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    folder = tmp_path_factory.mktemp("two")
    one = everything(words)  # renders the clips
    torch.multiprocessing.spawn(one_of_two_processes, args=(words, str(folder)), nprocs=2)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2))
    return {"one": one, "first": first, "second": second}


@pytest.mark.parametrize("name", CASES)
def test_training_gives_the_same_weights(results: dict[str, dict[str, Any]], name: str) -> None:
    case = CASES[name]
    one, first, second = (results[process]["trained"] for process in ("one", "first", "second"))
    plain, norms = one[name, case.one[0], "alone"]
    assert len(norms) == -(-NUM_CLIPS // case.global_batch) and min(norms) > 0.1
    others = [key for key in (*one, *first) if key[0] == name]
    assert len(others) == len(case.one) + 2 * len(case.two)
    for key in others:
        weights, found = one.get(key) or first[key]
        torch.testing.assert_close(weights, plain, rtol=1e-5, atol=1e-6)
        assert found == pytest.approx(norms, rel=1e-5)
    for key in first.keys() & set(others):
        torch.testing.assert_close(second[key], first[key], rtol=0, atol=0)


def test_the_comparison_can_fail(results: dict[str, dict[str, Any]]) -> None:
    """Other batches, and a clip less, change the weights more than a thousand times as much as is allowed above."""
    heads = [
        results["one"]["trained"][name, case.one[0], "alone"][0]["model.head.weight"] for name, case in CASES.items()
    ]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(heads) for b in heads[:i])


@pytest.mark.parametrize("number", range(len(EVALUATIONS)))
def test_evaluation_gives_the_same_predictions_once_and_in_order(
    results: dict[str, dict[str, Any]], number: int
) -> None:
    num_videos, plain = EVALUATIONS[number]["num_videos"], results["one"]["predicted"][0]
    scored = [i for i in range(num_videos) if i != 2]
    for process in ("one", "first", "second"):
        predictions = results[process]["predicted"][number]
        assert predictions.indices.tolist() == scored and predictions.num_videos == num_videos
        assert [failure.index for failure in predictions.missing] == [i for i in range(num_videos) if i == 2]
        assert predictions.labels == plain.labels[: len(scored)]
        assert np.array_equal(predictions.scores, plain.scores[: len(scored)])


@pytest.mark.slow
def test_predictions_are_equal_byte_for_byte_for_one_to_four_processes(tmp_path: Path, tiny: list[str]) -> None:
    trained = ["TEST.ENABLE", "False", "OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_EPOCH", "1"]
    demo = ["--cfg", str(ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"), *tiny]
    assert run_net.main([*demo, *trained]) == 0
    checkpoint = next((tmp_path / "run/checkpoints").glob("*.pyth"))
    written = set()
    for processes, batch_size in ((1, 8), (2, 8), (3, 6), (4, 4)):
        folder = tmp_path / f"{processes}"
        settings = {
            "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": checkpoint, "OUTPUT_DIR": folder, "PRECISION": "fp32",
            "DIST.PROCESSES_PER_NODE": processes, "TEST.BATCH_SIZE": batch_size, "TEST.NUM_ENSEMBLE_VIEWS": 2,
        }  # fmt: skip
        words = [str(word) for pair in settings.items() for word in pair]
        command = [sys.executable, str(ROOT / "tools/run_net.py"), *demo, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert processes == 1 or f"{processes} processes" in done.stdout
        written.add((folder / "predictions.csv").read_bytes())
    assert len(written) == 1 and written.pop().count(b"\n") == 13
