"""The rules of ARCHITECTURE.md that a program can check: floors, circles, homes, small files with one job."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "timesformer"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = ("timesformer", "tools", "tests", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# The floors, the lowest first; a room imports itself and the rooms of lower floors, never one of its own floor.
FLOORS = (
    {"utils"},
    {"visualization", "config", "video"},
    {"distributed", "optim", "weights"},
    {"datasets", "models"},
    {"evaluation", "runtime"},
    {"engine"},
    {"cost", "inference"},
    {"cli"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Where an outside library is at home.
HOMES = {
    "av": {"video", "datasets.gestures.rendering", "utils.env"},  # the last: FFmpeg's versions
    "torchcodec": {"video.readers", "video.torchcodec_reader"},
    "cv2": {"video", "datasets.gestures"},
    "torchvision": {"video.transforms", "video.augment", "datasets.mixing", "models.baselines"},
    "timm": {"weights.sources", "weights.resizing", "optim.build", "engine.step"},
    "huggingface_hub": {"weights.sources"},
    "transformers": {"cost.benchmark"},
    "matplotlib": {"visualization"},
    "jinja2": {"visualization.page"},
    "yacs": set(),
    "torch.utils.tensorboard": {"engine.events"},
    "sklearn": {"evaluation.metrics", "evaluation.baselines"},
    "scipy": {"evaluation.metrics", "evaluation.calibration"},
    "mediapipe": {"video.hand_landmarks"},
    "submitit": {"cli.submit"},
    "einops": {"models", "inference.rollout"},
    "onnxruntime": {"runtime", "inference.exporting"},
    "onnxscript": {"inference.exporting"},
}

# Modules whose functions may take the whole configuration (`from_config` may anywhere).
CFG_DOORS = {
    "datasets.build", "models.build", "optim.build", "distributed.launch",
    "engine.setup", "engine.train", "engine.test", "engine.check", "engine.checkpoint", "cost.benchmark",
    "engine.baselines",
    "models.config_checks", "cli.submit", "cli.compare",
}  # fmt: skip


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[tuple[str, str]]:
    """What `module` imports, and when: "at once", in a "call", or only for "types"."""
    found = set()

    def visit(node: ast.AST, when: str) -> None:
        if isinstance(node, ast.Import):
            found.update((alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write relative imports out in full"
            found.update((f"{node.module}.{alias.name}", when) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            when = "types"
        elif isinstance(node, ast.FunctionDef):
            when = "call"
        for child in ast.iter_child_nodes(node):
            visit(child, when)

    visit(tree(MODULES[module]), "at once")
    return frozenset(found)


def project_imports(module: str) -> set[str]:
    """The project's modules that `module` imports, anywhere in it."""
    found = set()
    for name, _ in imports(module):
        if name.partition(".")[0] == "timesformer":
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


def in_library(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


OLD_DOORS = {"timesformer.utils.parser"}  # names that programs for other frameworks import; nothing here does


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") > 1 and name not in OLD_DOORS])
def test_a_module_imports_only_its_own_floor_and_those_below(module: str) -> None:
    room = module.split(".")[1]
    reached = {name.split(".")[1] for name in project_imports(module) if "." in name} - {room}
    assert all(FLOOR_OF[other] < FLOOR_OF[room] for other in reached)


def test_every_floor_has_a_rule() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms == FLOOR_OF.keys()


def test_the_tree_in_the_document_is_the_tree() -> None:
    block = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    listed, folders = set(), [""]
    for line in block.splitlines():
        if match := re.match(r"( *)(\w+)/", line):
            folders[len(match[1]) // 2 :] = [match[2]]
        listed |= {"/".join([*folders, name]) for name in re.findall(r"\b\w+\.py\b", line)}
    found = {str(path.relative_to(ROOT)) for path in SOURCES if path.name != "__init__.py"}
    assert listed == {path for path in found if not path.startswith("tests/")}


def test_no_import_circles() -> None:
    door = "timesformer"  # names what it exports, and imports it when it is used
    graph = {module: project_imports(module) - {module, door} for module in MODULES if module != door}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("library", HOMES)
def test_an_outside_library_stays_at_home(library: str) -> None:
    users = {
        module.removeprefix("timesformer.")
        for module in MODULES
        for name, when in imports(module)
        if in_library(name, library) and when != "types"
    }
    assert all(any(in_library(user, home) for home in HOMES[library]) for user in users), users


def test_models_import_timm_and_torchvision_in_calls_only() -> None:
    for module in (name for name in MODULES if name.startswith("timesformer.models")):
        at_once = {name.partition(".")[0] for name, when in imports(module) if when == "at once"}
        assert not at_once & {"timm", "torchvision", "huggingface_hub"}, module


def test_importing_the_model_brings_no_heavy_library() -> None:
    code = "import sys, timesformer.models.vit; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {
        "torchvision",
        "timm",
        "matplotlib",
        "av",
        "cv2",
        "torchcodec",
        "sklearn",
        "huggingface_hub",
        "transformers",
    }
    assert not loaded & heavy


def test_the_configuration_stops_at_the_door() -> None:
    takers = [
        f"{module}.{node.name}"
        for module in MODULES
        if module.removeprefix("timesformer.") not in CFG_DOORS and "timesformer.config" not in module
        for node in ast.walk(tree(MODULES[module]))
        if isinstance(node, ast.FunctionDef) and node.name != "from_config"
        if "cfg" in {argument.arg for argument in node.args.args + node.args.kwonlyargs}
    ]
    assert takers == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_its_job_first_and_stays_small(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 400
    if tree(path).body:  # an empty __init__.py has no job
        docstring = ast.get_docstring(tree(path))
        assert docstring and docstring.splitlines()[0].strip(), "the first line says the file's one job"


def complexity(function: ast.FunctionDef) -> int:
    """Cyclomatic complexity: one, and one for each branch, loop, handler, comprehension and operator `and`, `or`."""
    branches = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension)
    nodes = list(ast.walk(function))
    operators = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + operators + sum(isinstance(node, branches) for node in nodes)


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_small(module: str) -> None:
    functions = [node for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.FunctionDef)]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: size for name, size in sizes.items() if size > 80} == {}
    assert {node.name: complexity(node) for node in functions if complexity(node) > 25} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_oldest_supported_python_reads_every_file(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
