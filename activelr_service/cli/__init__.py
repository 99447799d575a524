"""The command ``activelr``. A command parses and checks first, and imports what is heavy only then."""

import atexit
import os
import sys
import traceback

from activelr_service.cli.app import app
from activelr_service.errors import naming_missing_packages
from activelr_service.redact import redact

STOPPED = (130, 143)  # by Ctrl-C or SIGTERM


def main(args: list[str] | None = None) -> None:
    """Run the command line with ``args``, or with those of the process.

    Errors that the user can mend are one line each, without a traceback and without secrets.
    """
    try:
        with naming_missing_packages(" ".join(["activelr", *(sys.argv[1:] if args is None else args)[:1]])):
            app(args, prog_name="activelr")
    except SystemExit as error:
        if error.code in STOPPED:
            _end_now(error.code)
        raise
    except Exception as error:
        code = getattr(error, "exit_code", None)  # of the errors that this package explains itself
        _leave(*((traceback.format_exc().rstrip(), 1) if code is None else (str(error), code)))


def _leave(message: str, code: int) -> None:
    print(redact(f"activelr: {message}" if "\n" not in message else message), file=sys.stderr)
    _end_now(code)  # threads of libraries that are loaded and idle can abort an ordinary end


def _end_now(code: int) -> None:
    """Without taking down every module, which takes seconds where much is loaded and the machine is busy."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
