"""The pictures of the documents show what the program shows."""

from __future__ import annotations

import re

import pictures
import pytest

DOCUMENTS = [pictures.ROOT / name for name in ("README.md", "CONTRIBUTING.md", ".github/GUIDE.md")]


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """Give the pictures as they would be drawn now."""
    return pictures.draw()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["upload.svg", "status.svg", "watch.svg"])
def test_a_picture_is_not_outgrown(name: str, drawn: dict[str, str]) -> None:
    """Its text is that of a new one; else ``python tests/pictures.py`` draws it anew."""
    kept = (pictures.PICTURES / name).read_text(encoding="utf-8")
    assert pictures.words(drawn[name]) == pictures.words(kept)


def test_every_picture_is_linked() -> None:
    """Relatively, and with words for who does not see it; none lies about that nobody links."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    linked = set(re.findall(r"!\[[^\]]{10,}\]\((?:\.github/)?pictures/([\w.-]+)\)", text))
    assert {path.name for path in pictures.PICTURES.iterdir()} == linked
