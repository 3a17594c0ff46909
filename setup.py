"""Shim for `python setup.py develop`; everything about the package is in pyproject.toml."""

from setuptools import setup

setup()
