"""The command, which is also ``python -m yolo_clearml`` where it is not on the PATH."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; an interrupt while it is still being imported ends it without a traceback."""
    try:
        from .cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # as errors.Exit.INTERRUPTED, which may not be there yet


if __name__ == "__main__":
    main()
