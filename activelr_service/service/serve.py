"""Serving a trained model on this machine, by MLflow's own scoring server."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from activelr_service.errors import CommandError
from activelr_service.tracking.mlflow_model import save_mlflow_model

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_LINE = 4000  # characters of an example that a person still pastes into a terminal
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
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
    """MLflow's server, in a process group of its own. Its ``uvicorn`` is that of this Python, whatever ``$PATH`` says."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, **QUIET}
    where = ["--host", host, "--port", str(port)]
    return subprocess.Popen([*command, *where], env=environment, start_new_session=True)  # noqa: S603 - no shell


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
        return lines
    row = _first_row(example)
    if len(row) <= LONGEST_LINE:
        return [*lines, f"  curl {url} -d {shlex.quote(row)}"]
    lines.append(f"  curl {url} -d @{shlex.quote(str(example))}")
    is_image = json.loads(row)["dataframe_split"]["columns"] == ["image"]
    return [*lines, "  " + OWN_IMAGE % url] if is_image else lines


def _first_row(example: Path) -> str:
    """The first row of MLflow's example for its server, as the JSON that the server takes."""
    split = json.loads(example.read_text())["dataframe_split"]
    return json.dumps({"dataframe_split": {"columns": split["columns"], "data": split["data"][:1]}})


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the whole process group of the server."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    server.wait()
