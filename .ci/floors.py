"""Prints the oldest version of each dependency that pyproject.toml admits, as constraints for pip."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in project["dependencies"]:
    name, floor, version = requirement.partition(">=")
    if floor:
        print(f"{name}=={version}")
