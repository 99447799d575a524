"""Commands about runs: on this machine by their names, and with ``--address`` about the jobs of a Ray cluster."""

import json
import os
import sys
from typing import Annotated, Any

import typer

from activelr_service.cli import cluster_commands
from activelr_service.cli.job_commands import Overrides
from activelr_service.cli.stop import exit_on_signals, stop_run
from activelr_service.config import TrainJob, read_resolved_job
from activelr_service.errors import CommandError, RunDamagedError
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run, find_run, list_runs, output_root
from activelr_service.tracking.store import is_embedded

COLUMNS = ("run", "status", "epochs", "score", "MLflow run", "reason")
WIDTH = 250  # columns of a table that is written to a file or a pipe

OutputDir = Annotated[str, typer.Option("--output-dir", help="The folder that holds the runs.")]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="A Ray cluster's dashboard, http://HOST:8265."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="NAME, NAME/NUMBER or a run folder.", show_default=False)]
Target = Annotated[
    str, typer.Argument(help="A run on this machine, or with --address a submitted job.", show_default=False)
]


def resume(run: RunName, output_dir: OutputDir = "outputs", overrides: Overrides = []) -> None:  # noqa: B006
    """Continue a run: its training, or the upload of its results to MLflow.

    With --set you change the length of the run, also of a finished one: --set epochs=40, budget.time=3h or
    budget.steps=5000. If the tracking server has moved, give its new address: --set tracking.uri=URI.

    Example: activelr resume digits --set epochs=40
    """
    found = _find(run, output_dir)
    job, source = read_resolved_job(found.folder / "resolved.yaml", overrides)
    from activelr_service.service.launch import resume as resume_run

    exit_on_signals()
    with source.locating():
        resume_run(found, job if overrides else None)


def evaluate(run: RunName, output_dir: OutputDir = "outputs", overrides: Overrides = []) -> None:  # noqa: B006
    """Evaluate a trained model on its validation data, or on other data of the same kind.

    Example: activelr evaluate digits --set data.path=other.npz
    """
    found = _find(run, output_dir)
    job, source = read_resolved_job(found.folder / "resolved.yaml", overrides)
    from activelr_service.service.evaluate import evaluate_run

    with source.locating():
        metrics = evaluate_run(found, job)
    print(json.dumps(metrics, indent=1))


def explain(run: RunName, output_dir: OutputDir = "outputs") -> None:
    """Print which values a run chose by itself, why, and how its step sizes changed.

    Example: activelr explain digits
    """
    from activelr_service.service.explain import explain_run

    print("\n".join(explain_run(_find(run, output_dir))))


def list_(output_dir: OutputDir = "outputs", address: Address = None) -> None:
    """List the runs on this machine, or with --address the jobs of a cluster.

    Example: activelr list
    """
    if address:
        return cluster_commands.list_jobs(address)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=None)
    for run in list_runs(output_root(output_dir)):
        table.add_row(*map(Text, run_row(run)))
    return Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def status(target: Target, output_dir: OutputDir = "outputs", address: Address = None) -> None:
    """Print the state of a run, or with --address of a submitted job.

    Example: activelr status digits
    """
    if address:
        return cluster_commands.show_status(address, target)
    return print("\n".join(run_lines(_find(target, output_dir))))


def logs(
    target: Target,
    output_dir: OutputDir = "outputs",
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow a submitted job until it ends.")] = False,
) -> None:
    """Print the log of a run, or with --address of a submitted job.

    Example: activelr logs digits-1a2b3c4d --address http://127.0.0.1:8265 --follow
    """
    if address:
        return cluster_commands.show_logs(address, target, follow)
    run = _find(target, output_dir)
    if not run.log.is_file():
        raise CommandError(f"{run.label} has no log: {run.log} is missing")
    return print(run.log.read_text(errors="replace"), end="")


def stop(target: Target, output_dir: OutputDir = "outputs", address: Address = None) -> None:
    """Stop a run, or with --address a submitted job. You can continue it later.

    Example: activelr stop digits
    """
    if address:
        return cluster_commands.stop_job(address, target)
    run = _find(target, output_dir)
    stop_run(run)
    remedy = f"`activelr resume {run.label}` continues it from its last committed epoch"
    return print(f"{run.label} is asked to stop; {remedy}")


def ui(
    output_dir: OutputDir = "outputs", port: Annotated[int, typer.Option(help="The port, on this machine only.")] = 5000
) -> None:
    """Open the MLflow UI for the runs that are tracked on this machine, at 127.0.0.1.

    Example: activelr ui --port 5001
    """
    from activelr_service.tracking.store import ARTIFACTS, DATABASE, embedded_store

    root = output_root(output_dir)
    if not (root / DATABASE).exists():
        text = f"no embedded MLflow store in {root}: nothing was tracked there; if a server tracks the runs, open it"
        raise CommandError(f"{text}; `activelr resume RUN --set tracking.backend=mlflow` tracks a run afterwards")
    print(f"MLflow UI of {root}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    store = ["--backend-store-uri", embedded_store(root), "--default-artifact-root", (root / ARTIFACTS).as_uri()]
    where = ["--no-serve-artifacts", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *store, *where])  # noqa: S606


def run_row(run: Run) -> list[str]:
    """The cells of a run under :data:`COLUMNS`. A run that cannot be read is shown as damaged, with the reason."""
    try:
        state, history, job = run.state(), read_journal(run.journal), run.job()
        status = run.status()
    except RunDamagedError as error:
        return [run.label, "damaged", "", "", "", _without_label(str(error), run)]
    return [
        run.label,
        status,
        _progress(history, job),
        _score(state),
        state.get("mlflow_run_id", ""),
        _reason(state, run),
    ]


def run_lines(run: Run) -> list[str]:
    """All that ``activelr status`` prints about a run. Raises :class:`RunDamagedError` if the run cannot be read."""
    state, history, job = run.state(), read_journal(run.journal), run.job()
    attempts = f", attempt {state['attempts']}" if state.get("attempts", 1) > 1 else ""
    last = run.log.read_text(errors="replace").splitlines()[-1:] if run.log.exists() else []
    facts = {
        "reason": _reason(state, run),
        "epochs": _progress(history, job),
        "ended": state.get("early_stop") or "",
        "best": f"{_score(state)}, at epoch {state['best_epoch']}" if _score(state) else "",
        "process": f"{state.get('pid')} on {state.get('host')}" if run.is_active() else "",
        "model": " ".join([str(run.model), *_in_brackets(state.get("model_uri"))]) if run.model.exists() else "",
        "MLflow": _where_tracked(run, job, state),
        "folder": str(run.folder),
        "log": "".join(last),
    }
    shown = [f"  {name:<8} {text}" for name, text in facts.items() if text]
    return [f"{run.label}: {run.status()}{attempts}", *shown]


def _find(target: str, output_dir: str) -> Run:
    return find_run(output_root(output_dir), target)


def _progress(history: list[Record], job: TrainJob) -> str:
    if not history:
        return f"0 of {job.duration}"
    return job.duration.describe(history[-1].position).removeprefix("epoch").strip()


def _score(state: dict[str, Any]) -> str:
    return f"{state['score_name']} {state['score']:.4f}" if state.get("score") is not None else ""


def _reason(state: dict[str, Any], run: Run) -> str:
    return _without_label((state.get("reason") or "").partition("\n")[0], run)


def _without_label(text: str, run: Run) -> str:
    return text.removeprefix(f"run {run.label} ").removeprefix("is damaged: ")


def _in_brackets(uri: str | None) -> list[str]:
    return [f"({uri} in MLflow)"] if uri else []


def _where_tracked(run: Run, job: TrainJob, state: dict[str, Any]) -> str:
    uri = job.tracking.uri or ""
    place = f"activelr ui --output-dir {run.folder.parent.parent}" if is_embedded(uri) else uri
    rest = "" if state.get("tracked") else ", where some results are missing yet"
    return f"{place}  (run {state['mlflow_run_id']}{rest})" if state.get("mlflow_run_id") else ""
