"""The command ``activelr playground``: the page on which the optimizers race."""

import os
import sys
import webbrowser
from typing import Annotated

import typer

from activelr_service.playground import PAGE


def playground(
    path: Annotated[bool, typer.Option("--path", help="Print the path of the page, and open nothing.")] = False,
) -> None:
    """Open the playground in the browser: optimizers race on small landscapes, and you watch the gains move.

    Example: activelr playground
    """
    if path:
        print(PAGE)
    elif _has_browser() and webbrowser.open(PAGE.as_uri()):
        print(f"opened {PAGE} in the browser")
    else:
        print("no browser found here; open this file in one, or copy it to a machine that has one:", file=sys.stderr)
        print(PAGE)


def _has_browser() -> bool:
    """Whether a browser that runs scripts can show a page: on Linux it needs a screen, or one that the user names."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
