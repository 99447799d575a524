"""The commands, in the order people meet them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from activelr_service import __version__
from activelr_service.cli import analyse_commands, cluster_commands, document_commands, study_commands
from activelr_service.cli.show import COLUMNS, run_lines, run_row
from activelr_service.cli.signals import exit_on_signals
from activelr_service.cli.stop import stop_run
from activelr_service.config import read_job, read_job_or_study, read_resolved_job
from activelr_service.errors import CommandError
from activelr_service.runs.run import Run, find_run, list_runs, output_root

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train deep networks without choosing a learning rate or a batch size.",
)

app.add_typer(analyse_commands.app, name="analyse")
app.command()(study_commands.study)
app.command()(study_commands.report)

JobFile = Annotated[Path, typer.Argument(help="The YAML job.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="A.B=VALUE", help="Override a value of the job; repeatable.")
]
OutputDir = Annotated[str, typer.Option("--output-dir", help="Where the runs are.")]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="A Ray cluster's dashboard, http://HOST:8265."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="NAME, NAME/NUMBER or a run folder.", show_default=False)]
Target = Annotated[str, typer.Argument(help="A run here, or with --address a submitted job.", show_default=False)]

WIDTH = 250  # of a table that is not shown on a screen


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"activelr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Train deep networks without choosing a learning rate or a batch size."""


app.command()(document_commands.init)


@app.command()
def validate(
    job: JobFile,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    data: Annotated[bool, typer.Option("--data", help="Say what was read, and decode every image.")] = False,
) -> None:
    """Check a job and its data, without starting anything: what would keep the job from its first step is found here.

    Example: activelr validate job.yaml --data
    """
    checked, source = read_job(job, overrides)
    from activelr_service.service.prepare import FILES_DECODED, describe_data, validate_job

    with source.locating():
        found = validate_job(checked, None if data else FILES_DECODED)
    if found is None:
        return print(f"{job} is valid: {checked.name}, {checked.duration}; its data are checked once fetched")
    print(f"{job} is valid: {checked.name}, {found.job.task}, {checked.duration}; {found.info.describe()}")
    shown = describe_data(found.info) if data else [f"warning: {warning}" for warning in found.info.warnings]
    return print(*(f"  {line}\n" for line in shown), sep="", end="")


app.command()(document_commands.schema)


@app.command()
def train(job: JobFile, overrides: Overrides = []) -> None:  # noqa: B006
    """Train a job to its end; submitted again, an unfinished one is continued.

    Example: activelr train job.yaml --set epochs=5
    """
    exit_on_signals()  # first: what is imported takes seconds
    from activelr_service.service.launch import train as train_job

    checked, source = read_job(job, overrides)
    with source.locating():
        train_job(checked)


@app.command()
def resume(run: RunName, output_dir: OutputDir = "outputs", overrides: Overrides = []) -> None:  # noqa: B006
    """Bring a run to its end: its training, or what of it MLflow has not got yet.

    With --set, other epochs or another budget, a finished one too: --set epochs=40, budget.time=3h or budget.steps=5000.
    Or, where the tracking server has moved to: --set tracking.uri=URI.

    Example: activelr resume digits --set epochs=40
    """
    found = _find(run, output_dir)
    job, source = read_resolved_job(found.folder / "resolved.yaml", overrides)
    from activelr_service.service.launch import resume as resume_run

    exit_on_signals()
    with source.locating():
        resume_run(found, job if overrides else None)


@app.command()
def evaluate(run: RunName, output_dir: OutputDir = "outputs", overrides: Overrides = []) -> None:  # noqa: B006
    """Measure a trained model on its held-out data, or on other data of the same kind.

    Example: activelr evaluate digits --set data.path=other.npz
    """
    found = _find(run, output_dir)
    job, source = read_resolved_job(found.folder / "resolved.yaml", overrides)
    from activelr_service.service.evaluate import evaluate_run

    with source.locating():
        metrics = evaluate_run(found, job)
    print(json.dumps(metrics, indent=1))


@app.command()
def explain(run: RunName, output_dir: OutputDir = "outputs") -> None:
    """Say what a run chose by itself, why, and how its steps moved.

    Example: activelr explain digits
    """
    from activelr_service.service.explain import explain_run

    print("\n".join(explain_run(_find(run, output_dir))))


@app.command("list")
def list_(output_dir: OutputDir = "outputs", address: Address = None) -> None:
    """List the runs here, or with --address the jobs of a cluster.

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


@app.command()
def status(target: Target, output_dir: OutputDir = "outputs", address: Address = None) -> None:
    """Say how a run, or with --address a submitted job, is doing.

    Example: activelr status digits
    """
    if address:
        return cluster_commands.show_status(address, target)
    return print("\n".join(run_lines(_find(target, output_dir))))


@app.command()
def logs(
    target: Target,
    output_dir: OutputDir = "outputs",
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Of a submitted job: until it ends.")] = False,
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


@app.command()
def stop(target: Target, output_dir: OutputDir = "outputs", address: Address = None) -> None:
    """Stop a run, or with --address a submitted job; it can be resumed.

    Example: activelr stop digits
    """
    if address:
        return cluster_commands.stop_job(address, target)
    run = _find(target, output_dir)
    stop_run(run)
    return print(
        f"{run.label} is asked to stop; `activelr resume {run.label}` continues it from its last committed epoch"
    )


@app.command()
def submit(
    job: JobFile,
    address: Annotated[
        str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard.")
    ] = ("http://127.0.0.1:8265"),
    overrides: Overrides = [],  # noqa: B006
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print its log until it ends.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow plain http to another machine.")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not look for the data on this machine.")] = False,
) -> None:
    """Send a job or a study to a Ray cluster.

    Example: activelr submit job.yaml --address http://127.0.0.1:8265 --follow
    """
    checked, source = read_job_or_study(job, overrides)
    with source.locating():
        cluster_commands.submit_document(address, checked, follow=follow, insecure=insecure, check=not no_check)


@app.command()
def ui(
    output_dir: OutputDir = "outputs", port: Annotated[int, typer.Option(help="Port on this machine only.")] = 5000
) -> None:
    """Open the embedded MLflow store in MLflow's UI, on 127.0.0.1.

    Example: activelr ui --port 5001
    """
    import os

    from activelr_service.tracking.store import ARTIFACTS, DATABASE, embedded_store

    root = output_root(output_dir)
    if not (root / DATABASE).exists():
        text = f"no embedded MLflow store in {root}: nothing was tracked there; a server shows the runs that it tracks"
        raise CommandError(f"{text}, and `activelr resume RUN --set tracking.backend=mlflow` tracks a run afterwards")
    print(f"MLflow UI of {root}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    store = ["--backend-store-uri", embedded_store(root), "--default-artifact-root", (root / ARTIFACTS).as_uri()]
    where = ["--no-serve-artifacts", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *store, *where])  # noqa: S606


def _find(target: str, output_dir: str) -> Run:
    return find_run(output_root(output_dir), target)
