"""Configuration: keys declared in defaults.py, files found by locate.py, read by read.py, checked by load.py."""

from timesformer.config.defaults import get_cfg
from timesformer.config.load import LoadedConfig, config_from_settings, load_config, unread_keys
from timesformer.config.locate import find_config

__all__ = ["LoadedConfig", "config_from_settings", "find_config", "get_cfg", "load_config", "unread_keys"]
