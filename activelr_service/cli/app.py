"""The command line: every command, in the order in which a user meets it."""

from importlib.metadata import version
from typing import Annotated

import typer

from activelr_service.cli import (
    compare_command,
    job_commands,
    model_commands,
    playground_command,
    run_commands,
    study_commands,
)

HELP = "Train deep networks without choosing a learning rate or a batch size."

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=HELP)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"activelr {version('activelr-service')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train deep networks without choosing a learning rate or a batch size."""


for command in (
    job_commands.init,
    job_commands.validate,
    job_commands.schema,
    job_commands.train,
    run_commands.resume,
    run_commands.finish,
    run_commands.evaluate,
    model_commands.predict,
    model_commands.serve,
    model_commands.export,
    run_commands.explain,
    run_commands.list_,
    compare_command.compare,
    run_commands.status,
    run_commands.logs,
    run_commands.stop,
    run_commands.ui,
    job_commands.submit,
    study_commands.study,
    study_commands.challenge,
    study_commands.prove,
    study_commands.report,
    playground_command.playground,
):
    app.command(command.__name__.rstrip("_"))(command)

app.add_typer(study_commands.analyses, name="analyze")
app.add_typer(study_commands.analyses, name="analyse", hidden=True)  # the name of the command up to version 0.1
