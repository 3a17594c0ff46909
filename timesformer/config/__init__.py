"""Configuration: declared once in defaults.py, read and checked by load.py."""

from timesformer.config.defaults import get_cfg
from timesformer.config.load import LoadedConfig, load_config, unread_keys

__all__ = ["LoadedConfig", "get_cfg", "load_config", "unread_keys"]
