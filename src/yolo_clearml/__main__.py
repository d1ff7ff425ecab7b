"""``python -m yolo_clearml``, where the command is not on the PATH."""

from .cli import main

main()
