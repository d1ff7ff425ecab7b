"""What a command needs of where it is called, before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError


def require_current_folder(arguments: Mapping[str, Any]) -> None:
    """Raise UsageError where a path is relative, and there is no folder that it could be relative to."""
    given = [value if isinstance(value, list) else [value] for value in arguments.values()]
    relative = [
        path for paths in given for path in paths if isinstance(path, Path) and not path.is_absolute()
    ]
    try:
        Path.cwd()
    except OSError as cause:
        if relative:
            raise UsageError(
                f"{relative[0]} is a path from the current folder on, which is not there any more.",
                "Change to a folder that is there, or give whole paths.",
            ) from cause
