"""Which endpoints the source calls."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yolo_clearml

SOURCE = Path(yolo_clearml.__file__).parent

# by the SDK's session, and of the file server
UNNAMED = {"auth.login", "files:POST", "files:GET"}


def endpoints_in_source() -> set[str]:
    """Every text of the source that looks like the name of an endpoint."""
    pattern = re.compile(r"(auth|debug|events|models|organization|projects|queues|tasks|users|workers)\.\w+")
    return {
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value)
    } - {"models.output"}  # a field of a task
