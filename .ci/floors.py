"""Prints the oldest version of each dependency that pyproject.toml admits, as constraints for pip."""

from importlib.metadata import requires

for requirement in requires("yolo-clearml") or ():
    name, floor, version = requirement.partition(">=")
    if floor and "extra ==" not in version:
        print(f"{name}=={version}")
