"""Exported models: `timesformer.runtime.load("model.onnx").predict("clip.mp4")`; no torch is needed."""

from timesformer.runtime.runner import Runner, load

__all__ = ["Runner", "load"]
