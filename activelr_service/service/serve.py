"""Serving a trained model on this machine, by MLflow's own scoring server."""

import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from activelr_service.errors import CommandError
from activelr_service.tracking.mlflow_model import save_mlflow_model, server_command

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_LINE = 4000  # characters of an example that a person still pastes into a terminal
END_S = 10  # how long the server may take to end
SERVING_INPUT = "serving_input_example.json"  # MLflow's name
OWN_IMAGE = (
    """(printf '{"dataframe_records": [{"image": "'; base64 < photo.jpg | tr -d '\\n'; printf '"}]}') | curl %s -d @-"""
)

Say = Callable[[str], None]


def serve_model(folder: Path, host: str, port: int, say: Say = print) -> None:
    """Serve the exported model in ``folder`` at ``http://HOST:PORT/invocations`` until this process is ended.

    Once the server answers, ``say`` gets a line for the shell that asks it about rows of the validation data. When this
    function is left, also by ``SystemExit`` or ``KeyboardInterrupt``, no process of the server is left.

    Raises :class:`CommandError` if the port is taken, or if the server ends by itself.
    """
    _check_port(host, port)
    if host not in LOOPBACK:
        say(f"warning: everybody who reaches {host}:{port} can ask the model: this server has no authentication")
    with tempfile.TemporaryDirectory(prefix="activelr-serve-") as temporary:
        model = save_mlflow_model(folder, Path(temporary, "model"))
        server = _start(model, host, port)
        try:
            _wait_until_it_answers(server, host, port)
            for line in _greeting(model, host, port):
                say(line)
            code = server.wait()
            raise CommandError(f"the server ended by itself, with exit code {code}; its last lines say why")
        finally:
            _end(server)


def _check_port(host: str, port: int) -> None:
    """Raise :class:`CommandError` if nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            text = f"nothing can be served at {host}:{port}: {reason}"
            raise CommandError(f"{text}; name another port with --port or another address with --host") from None


def _start(model: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    """MLflow's server, in a process group of its own."""
    command, environment = server_command(model, host, port)
    return subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 - no shell


def _wait_until_it_answers(server: subprocess.Popen[bytes], host: str, port: int) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address(host, port)}/ping", timeout=5):  # noqa: S310 - http
                return
        except OSError:  # it is loading the model
            time.sleep(0.2)
    raise CommandError(f"the server did not start: exit code {server.returncode}; its last lines say why")


def address(host: str, port: int) -> str:
    """The URL of a server that listens there, as this machine reaches it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound here
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _greeting(model: Path, host: str, port: int) -> list[str]:
    """What a user can paste to ask the server, and how to end it."""
    url = f"{shlex.quote(address(host, port) + '/invocations')} -H 'Content-Type: application/json'"
    lines = [f"the model answers at {address(host, port)}/invocations  (Ctrl-C ends it)"]
    example = model / SERVING_INPUT
    if not example.is_file():
        return [*lines, "  the model keeps no example rows, so that there is no line with curl to paste"]
    row = _first_row(example)
    is_short = len(row) <= LONGEST_LINE
    lines.append(f"  curl {url} -d {shlex.quote(row) if is_short else '@' + shlex.quote(str(example))}")
    if json.loads(row)["dataframe_split"]["columns"] == ["image"]:
        lines += ["an image of your own:", "  " + OWN_IMAGE % url]
    return lines


def _first_row(example: Path) -> str:
    """The first row of MLflow's example for its server, as the JSON that the server takes."""
    split = json.loads(example.read_text())["dataframe_split"]
    return json.dumps({"dataframe_split": {"columns": split["columns"], "data": split["data"][:1]}})


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server with all processes that it started, and wait until they are gone."""
    try:
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        processes = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)  # also those whose parent is gone
        deadline = time.monotonic() + END_S
        while any(map(_is_alive, processes)) and time.monotonic() < deadline:
            server.poll()
            time.sleep(0.05)
    server.wait()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
