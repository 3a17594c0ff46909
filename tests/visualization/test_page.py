"""What a page escapes and which scripts it lets run."""

from __future__ import annotations

import base64
import re

import jinja2
import pytest

from timesformer.visualization.page import data_uri, render_page


def test_an_address_that_is_the_file() -> None:
    media_type, _, content = data_uri("video/mp4", b"\0\xff").partition(";base64,")
    assert media_type == "data:video/mp4" and base64.b64decode(content) == b"\0\xff"


def test_a_template_gets_all_it_shows() -> None:
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        render_page("report.html", title="<b>")


def test_only_the_script_of_the_page_may_run() -> None:
    content = dict.fromkeys(("results", "baselines", "warnings", "missing", "curves", "pictures"), ())
    empty: dict[str, object] = {name: {} for name in ("test", "settings", "changed", "lists", "versions")}
    titles = dict.fromkeys(("summary", "settings", "data", "environment"), "<i>")
    texts = dict.fromkeys(("title", "folder", "written", "version"), '"><script>alert(1)</script>')
    pages = [render_page("report.html", contents=titles, **texts, **content, **empty) for _ in "ab"]
    nonces = [re.findall(r"nonce-(\w+)'|<script nonce=\"(\w+)\">|<script>", page) for page in pages]
    assert all(len(found) == 2 and found[0][0] == found[1][1] for found in nonces) and nonces[0] != nonces[1]
    assert "&lt;script&gt;alert(1)" in pages[0] and "&lt;i&gt;" in pages[0]
