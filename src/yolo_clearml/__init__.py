"""Replay a YOLO training run directory into ClearML as if the callback had been on."""

from importlib.metadata import version

__version__ = version("yolo-clearml")
