"""The command ``activelr``. A command parses and checks first, and imports what is heavy only then."""

import sys

from activelr_service.cli.app import app
from activelr_service.config import JobError


def main() -> None:
    """Run the command line; errors that the user can mend are one line each, without a traceback."""
    try:
        app()
    except JobError as error:
        _leave(str(error), 2)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        _leave(str(error), code)


def exit_code(error: Exception) -> int | None:
    """The exit code of the errors that this package explains itself; None for any other."""
    if type(error).__name__ == "TrackingError":
        return 6
    return getattr(error, "exit_code", None)


def _leave(message: str, code: int) -> None:
    print(f"activelr: {message}" if "\n" not in message else message, file=sys.stderr)
    sys.exit(code)
