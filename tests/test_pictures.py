"""README's pictures show what the program shows."""

from __future__ import annotations

import re

import pictures
import pytest

README = (pictures.ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """Give the pictures as they would be drawn now."""
    return pictures.draw()


@pytest.mark.parametrize("name", ["upload.svg", "status.svg", "watch.svg"])
def test_a_picture_is_not_outgrown(name: str, drawn: dict[str, str]) -> None:
    """Its text is that of a new one; else ``python tests/pictures.py`` draws it anew."""
    kept = (pictures.PICTURES / name).read_text(encoding="utf-8")
    assert pictures.words(drawn[name]) == pictures.words(kept)


def test_every_picture_of_the_readme_is_there() -> None:
    """Linked relatively, and none lies about that nobody sees."""
    linked = set(re.findall(r"\.github/pictures/([\w.-]+)", README))
    assert {path.name for path in pictures.PICTURES.iterdir()} == linked
