"""``python -m yolo_clearml``, where the command is not on the PATH."""

from .cli.app import main

main()
