"""args.yaml is read by libyaml where it is there, and as PyYAML's reader in Python would read it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from yolo_clearml.errors import RunUnreadable
from yolo_clearml.rundir import arguments

# what decides how YAML is read, and values that are read as several types
PIECES = [
    *(
        "a",
        ": ",
        ":",
        "\n",
        "\r\n",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        '"',
        "\\",
        "#",
        " ",
        "  ",
        "\t",
        "? ",
    ),
    *(
        "1",
        "1.5",
        "1e3",
        "0x1f",
        "010",
        "1:30",
        "1_000",
        ".inf",
        ".nan",
        "~",
        "null",
        "No",
        "true",
        "2020-01-01",
    ),
    *("&x ", "*x", "!!str ", "!!int ", "<<: ", "|\n", "> \n", "%", "@", "`", "---\n", "...\n"),
    *("é", '"\\UFFFFFFFF"', "!", "\U0001f600", "\x85", "\u2028", "\x07", "\ufeff"),
]


def in_python(data: bytes) -> str | None:
    try:
        return repr(yaml.load(data, Loader=arguments._PlainLoader))
    except (
        yaml.YAMLError,
        ValueError,
        AttributeError,
        LookupError,
        TypeError,
        ArithmeticError,
    ):  # as the reader of a run takes them
        return None


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(lambda pieces: "".join(pieces).encode()))
@example(b"epochs: 3\nname: a\tb\n")
@example("\ufeff\ufeffname: No\n".encode())
def test_libyaml_reads_what_python_reads(data: bytes) -> None:
    """Whatever the reader in Python takes is the same for both; a few odd texts only libyaml takes."""
    wanted = in_python(data)
    if wanted is not None:
        assert wanted == repr(arguments._loaded(data))


def test_an_escape_of_no_character_is_no_plain_yaml(tmp_path: Path) -> None:
    """Python cannot even count so far, and says so by an error of arithmetic."""
    (tmp_path / "args.yaml").write_text('name: "\\UFFFFFFFF"\n')
    with pytest.raises(RunUnreadable, match="is not plain YAML"):
        arguments.read_arguments(tmp_path, "args.yaml")


@pytest.mark.parametrize("nested", ["[" * 100_000, "{a: " * 60_000, "- " * 100_000, "? " * 100_000])
def test_what_is_nested_deeply_is_not_given_to_libyaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: str
) -> None:
    """Its stack has no guard of Python's."""

    def load(data: bytes, Loader: type) -> object:  # noqa: N803  as it is called
        assert Loader is arguments._PlainLoader
        raise yaml.YAMLError

    monkeypatch.setattr(yaml, "load", load)
    (tmp_path / "args.yaml").write_text(f"name: {nested}")
    with pytest.raises(RunUnreadable, match="is not plain YAML"):
        arguments.read_arguments(tmp_path, "args.yaml")
