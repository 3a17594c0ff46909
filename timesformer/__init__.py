"""Config-driven training of video transformers on action and gesture clips."""

__version__ = "0.1.0"
