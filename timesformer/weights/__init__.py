"""Weights of any origin into a model, and out again.

`sources.py` finds a source, and `files.py` reads its bytes without running code. `layouts.py` recognises what they are
and gives `Weights`. `load.py` fits these into a model and reports it, `save.py` writes them for other programs.
"""

from timesformer.weights.layouts import Weights, read_weights, transformer_arguments
from timesformer.weights.load import LoadReport, load_weights
from timesformer.weights.save import save_weights

__all__ = ["LoadReport", "Weights", "load_weights", "read_weights", "save_weights", "transformer_arguments"]
