"""Commands about runs: on this machine by their names, and with ``--address`` about the jobs of a Ray cluster."""

import json
import os
import sys
from typing import Annotated

import typer

from activelr_service.cli import cluster_commands
from activelr_service.cli.job_commands import Overrides
from activelr_service.cli.scores import table, to_json
from activelr_service.cli.show_run import run_json, run_lines, run_row
from activelr_service.cli.stop import exit_on_signals, stop_run
from activelr_service.config import read_resolved_job
from activelr_service.errors import CommandError
from activelr_service.runs.run import Run, find_run, list_runs, output_root, target_of

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
    exit_on_signals()  # before the imports, which take seconds
    found = _find(run, output_dir)
    job, source = read_resolved_job(found.folder / "resolved.yaml", overrides)
    from activelr_service.service.launch import resume as resume_run

    with source.locating():
        resume_run(found, job if overrides else None)


def finish(run: RunName, output_dir: OutputDir = "outputs") -> None:
    """Make a run that was stopped, or that failed, a finished one: with the best model of the epochs that it has.

    Example: activelr finish digits
    """
    exit_on_signals()
    found = _find(run, output_dir)
    from activelr_service.service.launch import finish as finish_run

    finish_run(found)


def evaluate(
    run: RunName,
    output_dir: OutputDir = "outputs",
    split: Annotated[str | None, typer.Option(help="What is measured: train, val, test or all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics of each split as JSON.")] = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Measure a trained model on its validation and test data, or with --set on all of other data of the same kind.

    Other data in a file are given by data.path, in a folder by data.root.

    Example: activelr evaluate digits --set data.path=other.npz
    """
    found = _find(run, output_dir)
    job, source = read_resolved_job(found.folder / "resolved.yaml", overrides)
    from activelr_service.service.evaluate import evaluate_run

    with source.locating():
        evaluation = evaluate_run(found, job, split)
    if as_json:
        return print(json.dumps(to_json(evaluation.scores), indent=1))
    return print(
        "\n".join(
            [f"{found.label}, measured on:", *(f"  {line}" for line in evaluation.lines), *table(evaluation.scores)]
        )
    )


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


def status(
    target: Target,
    output_dir: OutputDir = "outputs",
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the state of a run as JSON.")] = False,
) -> None:
    """Print how a run is doing and what can be done with it, or with --address the state of a submitted job.

    Example: activelr status digits
    """
    if as_json:
        if address:
            raise CommandError("--json is for a run on this machine; leave out --address")
        return print(json.dumps(run_json(_find(target, output_dir)), indent=1))
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
    remedy = f"`activelr resume {target_of(run)}` continues it from its last checkpoint"
    return print(f"{run.label} is asked to stop, and leaves its best model so far; {remedy}")


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


def _find(target: str, output_dir: str) -> Run:
    return find_run(output_root(output_dir), target)
