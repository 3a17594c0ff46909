"""Where a configuration file is: on the disk, or among the configurations that come with the package."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from timesformer.utils.errors import ConfigError
from timesformer.utils.paths import expand_path


def bundled_configs() -> Path:
    """The folder of the package's configurations: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def find_config(name: str | os.PathLike[str]) -> Path:
    """The file that `name` means.

    Args:
        name: a path; or a configuration of the package, such as ``Gestures/LightTimeSformer_demo``, with or without
            ``configs/`` and ``.yaml``.

    Raises:
        ConfigError: there is no such file; the message lists similar names.
    """
    try:
        path, folder = Path(expand_path(os.fspath(name))), bundled_configs()
    except ValueError as error:
        raise ConfigError(f"cannot read config file {str(name)!r}: {error}") from error
    if path.exists():
        return path
    if bundled := bundled_config(path):
        return bundled
    short = _short_name(path)
    names = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    near = difflib.get_close_matches(short, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Those of the package are in {folder}."
    found = "No such file or directory, and no configuration of the package"
    raise ConfigError(f"cannot read config file {str(name)!r}: {found}. {hint}")


def bundled_config(name: str | os.PathLike[str]) -> Path | None:
    """The configuration of the package of that name, if there is one; see `find_config`."""
    path = bundled_configs() / f"{_short_name(Path(name))}.yaml"
    return path if path.is_file() and not Path(name).is_absolute() else None


def _short_name(path: Path) -> str:
    return path.as_posix().removeprefix("configs/").removesuffix(".yaml")
