"""Shim for `python setup.py develop`, and the configurations as data of the package; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["timesformer*"]), "timesformer.configs"],
    package_dir={"timesformer.configs": "configs"},
    package_data={"timesformer": ["**/*.md"], "timesformer.configs": ["**/*.yaml"]},
)
