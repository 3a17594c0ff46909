"""A web page in one file: a template of this folder with everything it shows inside."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any


def render_page(template: str, **content: Any) -> str:
    """The template filled with `content`, in which text is escaped.

    The page's own script carries the template's `nonce`, a random word that its policy asks for, so that the browser
    runs no other script.

    Args:
        template: name of a file of this folder.
        content: what the template shows, all of it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(nonce=secrets.token_hex(16), **content)


def data_uri(media_type: str, content: bytes) -> str:
    """An address that is the file itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
