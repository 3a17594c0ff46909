"""What a classifier is called."""

from __future__ import annotations

HEADS = ("head", "fc", "classifier")  # first part of its parameters' names, here and in torchvision
