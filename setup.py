"""Shim for `python setup.py develop`, and configs/ as timesformer.configs; the rest is in pyproject.toml."""

from setuptools import find_namespace_packages, find_packages, setup

configs = [f"timesformer.{folder}" for folder in find_namespace_packages(include=["configs*"])]
setup(
    packages=[*find_packages(include=["timesformer*"]), *configs],
    package_dir={"timesformer.configs": "configs"},
    package_data={
        "timesformer": ["**/*.md", "**/*.html", "**/*.safetensors"],
        **{folder: ["*.yaml"] for folder in configs},
    },
)
