"""A cluster on one machine: a Ray head and an MLflow server, on loopback, with Ray's token authentication.

    python -m cluster.local up
    python -m cluster.local down

``down`` ends exactly the processes that ``up`` started. What they keep is in ``HOME/outputs``.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TOKEN = Path.home() / ".ray" / "auth_token"
STARTUP_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--home", type=Path, default=ROOT, help="where runs, logs and MLflow's store go")
    parser.add_argument("--gcs-port", type=int, default=6379, help="Ray's own port")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="Ray's dashboard and Jobs API")
    parser.add_argument("--mlflow-port", type=int, default=5000, help="MLflow's UI and REST API")
    args = parser.parse_args()
    home = args.home.resolve()
    if args.action == "down":
        return down(home)
    return up(home, args.gcs_port, args.dashboard_port, args.mlflow_port)


def up(home: Path, gcs_port: int, dashboard_port: int, mlflow_port: int) -> None:
    """Start both, wait until they answer, and say where they are."""
    state = _state(home)
    running = [path.stem for path in state.glob("*.json") if _recorded_process(path)]
    if running:
        sys.exit(f"already up: {', '.join(running)}; `make cluster-down` ends it")
    for port in (gcs_port, dashboard_port, mlflow_port):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                sys.exit(
                    f"port {port} of this machine is in use; end what uses it, or see `python -m cluster.local -h`"
                )
    state.mkdir(parents=True, exist_ok=True)
    token = _ray_token()
    environment = _environment(home, mlflow_port)
    _start(state / "mlflow", _mlflow_command(home, mlflow_port), environment)
    _start(state / "ray", _ray_command(gcs_port, dashboard_port), environment)
    _wait(f"http://127.0.0.1:{mlflow_port}/health", state / "mlflow")
    _wait(f"http://127.0.0.1:{dashboard_port}/api/version", state / "ray", token)
    _wait_for_jobs(home, dashboard_port, environment)
    print(f"Ray     http://127.0.0.1:{dashboard_port}  (token in {TOKEN})")
    print(f"MLflow  http://127.0.0.1:{mlflow_port}")
    print(
        f"submit  .venv/bin/activelr submit configs/quickstart.yaml --address http://127.0.0.1:{dashboard_port} --follow"
    )


def down(home: Path) -> None:
    """End what :func:`up` started, and nothing else."""
    for path in sorted(_state(home).glob("*.json")):
        process = _recorded_process(path)
        if process is not None:
            _end(process)
            print(f"{path.stem} ended")
        path.unlink()


def _end(process: psutil.Process) -> None:
    """End a process and its children. Any of them may end by itself at any moment, which is no error."""
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
        process.terminate()
    _, alive = psutil.wait_procs(family, timeout=20)
    for survivor in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(alive, timeout=10)


def _state(home: Path) -> Path:
    return home / "outputs" / ".cluster"


def _environment(home: Path, mlflow_port: int) -> dict[str, str]:
    """What jobs on this cluster inherit: this Python, the tracking server, where runs go, time to end in good order."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # no: Ray then keeps to loopback, on Linux too
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow_port}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # six helper processes that nothing here uses
        "ACTIVELR_HOME": str(home),
    }


def _ray_command(gcs_port: int, dashboard_port: int) -> list[str]:
    ports = ["--port", str(gcs_port), "--dashboard-port", str(dashboard_port)]
    ports += ["--dashboard-agent-listen-port", str(_free_port())]  # Ray's own is taken by any other Ray on the machine
    hosts = ["--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
    return [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", *hosts, *ports]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _mlflow_command(home: Path, port: int) -> list[str]:
    database, artifacts = _state(home) / "mlflow.db", _state(home) / "artifacts"
    store = ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(artifacts)]
    return [str(BIN / "mlflow"), "server", *store, "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]


def _ray_token() -> str:
    """Ray's token of this user, made if there is none; readable by this user only."""
    if not TOKEN.exists():
        subprocess.run(  # noqa: S603
            [BIN / "ray", "get-auth-token", "--generate"], check=True, stdout=subprocess.DEVNULL, umask=0o077
        )
    TOKEN.chmod(0o600)
    return TOKEN.read_text().strip()


def _start(path: Path, command: list[str], environment: dict[str, str]) -> None:
    with path.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    created = psutil.Process(process.pid).create_time()
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"pid": process.pid, "created": created}))
    temporary.replace(path.with_suffix(".json"))


def _recorded_process(path: Path) -> psutil.Process | None:
    """The process that a state file is about, if it is still that process and alive. A file that was cut is about none."""
    try:
        recorded = json.loads(path.read_text())
        process = psutil.Process(recorded["pid"])
        is_it = abs(process.create_time() - recorded["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if is_it else None
    except (psutil.NoSuchProcess, OSError, ValueError, KeyError, TypeError):
        return None


def _wait(url: str, path: Path, token: str = "") -> None:
    """Until ``url`` answers; ends everything, with the log's last lines, if it does not."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline and _recorded_process(path.with_suffix(".json")):
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.5)
    how = "did not answer in time" if _recorded_process(path.with_suffix(".json")) else "has ended"
    down(path.parent.parent.parent)
    sys.exit("\n".join([f"{path.stem} {how}; the end of its log:", *_end_of_log(path)]))


def _end_of_log(path: Path) -> list[str]:
    return path.with_suffix(".log").read_text(errors="replace").splitlines()[-15:]


def _wait_for_jobs(home: Path, dashboard_port: int, environment: dict[str, str]) -> None:
    """Until a job that does nothing has run: Ray's API answers long before its agent can start jobs."""
    options = ["--address", f"http://127.0.0.1:{dashboard_port}"]
    submit = [str(BIN / "ray"), "job", "submit", *options, "--submission-id", "cluster-up", "--", "true"]
    ray, deadline = _state(home) / "ray", time.monotonic() + STARTUP_S
    while (sent := subprocess.run(submit, check=False, env=environment, capture_output=True, text=True)).returncode:  # noqa: S603
        if time.monotonic() > deadline or not _recorded_process(ray.with_suffix(".json")):
            down(home)
            said = [*_end_of_log(ray), *(sent.stderr or sent.stdout).splitlines()[-3:]]
            sys.exit(
                "\n".join(["Ray started and ran no job; the end of its log, and of what it says to a job:", *said])
            )
        time.sleep(1)
    delete = [str(BIN / "ray"), "job", "delete", *options, "cluster-up"]
    subprocess.run(delete, env=environment, capture_output=True, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
