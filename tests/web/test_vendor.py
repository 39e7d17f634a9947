"""What is shipped from elsewhere is what its table says; pages name no other place."""

from __future__ import annotations

import base64
import hashlib
import re

from minik8s.web.site import STATIC

ROW = re.compile(r"^\| (\S+) \|.*\| (sha384-\S+) \|$", re.M)


def test_shipped_files_are_those_of_the_table() -> None:
    table = dict(ROW.findall((STATIC / "vendor/README.md").read_text()))
    files = {file.name for file in (STATIC / "vendor").iterdir() if file.suffix in (".mjs", ".css")}
    assert set(table) == files
    for name, integrity in table.items():
        digest = hashlib.sha384((STATIC / "vendor" / name).read_bytes()).digest()
        assert f"sha384-{base64.b64encode(digest).decode()}" == integrity, name


def test_nothing_is_loaded_from_elsewhere_or_inline() -> None:
    own = [file for file in STATIC.rglob("*") if file.is_file() and file.parent.name != "vendor"]
    for file in own:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|<[a-z]+ [^>]*\bstyle=\"", text), file
    assert not re.search(r"<script(?![^>]*\bsrc=)", (STATIC / "index.html").read_text())
