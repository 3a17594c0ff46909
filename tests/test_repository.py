"""What the files around the package promise: commands, links and requirements exist; no machine's paths."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "benchmarks", "configs", "docs", "slurm_scripts", "tests", "timesformer", "tools")
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".sh", ".cff", ""}
EVERYTHING = [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
TEXTS = sorted(path for path in EVERYTHING if path.is_file() and path.suffix in SUFFIXES)
DOCUMENTS = [path for path in TEXTS if path.suffix == ".md"]

# Name of a requirement -> what is imported of it, where the two differ.
IMPORT_NAMES = {"pyyaml": "yaml", "opencv-python-headless": "cv2", "scikit-learn": "sklearn"}
OPTIONAL = {  # used where it is installed; the last two come with gradio
    *("torchcodec", "transformers", "mediapipe", "onnxruntime", "onnxscript", "gradio", "starlette", "PIL"),
}
INDIRECT = {"tensorboard"}  # imported by torch.utils.tensorboard


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "Makefile", ROOT / ".ci/run"], ids=relative)
def test_commands_in_documents_exist(path: Path) -> None:
    text = read(path)
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    blocks = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)) if path.suffix == ".md" else text
    assert set(re.findall(r"^[`$ ]*make ([a-z]+)\b", blocks, re.MULTILINE)) <= targets
    files = r"(?<![\w/.])((?:tools|configs|benchmarks|slurm_scripts)/[\w./-]+\.(?:py|yaml|sh))\b"
    assert [name for name in re.findall(files, text) if not (ROOT / name).is_file()] == []


def test_the_demo_resumes() -> None:
    """Nothing that took long is removed before, and each training continues where it was."""
    recipe = read(ROOT / "Makefile").partition("\ndemo:")[2].partition("\n\n")[0]
    trainings = [line for line in recipe.splitlines() if "run_net.py" in line]
    assert len(trainings) == 3 and all("TRAIN.AUTO_RESUME True" in line for line in trainings)
    assert re.findall(r"rm .*", recipe) == ["rm -f $(DEMO)/StreamTimeSformer.onnx"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", read(path))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_no_document_has_a_placeholder() -> None:
    assert [relative(path) for path in DOCUMENTS if re.search(r"@@\w+@@|\bTODO\b|\bXXX\b", read(path))] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    personal = re.compile(rf"/(?:home|Users|root|scratch)/\w|{re.escape(str(ROOT))}/")
    assert [relative(path) for path in TEXTS if personal.search(read(path))] == []


def test_requirements_are_what_the_code_imports() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read pyproject.toml")
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    names = {re.split(r"[<>=~! \[]", line)[0] for line in project["dependencies"]}
    required = {IMPORT_NAMES.get(name, name) for name in names}
    imported = set()
    for path in [*(ROOT / "timesformer").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    outside = imported - sys.stdlib_module_names - tools - {"timesformer", "tools"}
    assert outside - OPTIONAL == required - INDIRECT


def test_make_help_lists_the_targets() -> None:
    try:
        done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("make is not installed")
    for target in ("demo", "test", "lint", "clean"):
        assert f"make {target} " in done.stdout


def test_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)
