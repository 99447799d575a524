"""``activelr analyse``: the paper's analyses."""

from typing import Annotated

import typer

from activelr_service.runs.run import find_run, output_root

app = typer.Typer(no_args_is_help=True, help="The paper's analyses: a table, a picture and an MLflow run each.")

OutputDir = Annotated[str, typer.Option("--output-dir", help="Files go to DIR/analyses/NAME.")]
Track = Annotated[bool, typer.Option("--track/--no-track", help="Log them to MLflow.")]


@app.command("toy-functions")
def toy_functions(output_dir: OutputDir = "outputs", track: Track = True) -> None:
    """Descend the three functions of Figure 3 with Adam and ActiveAdamW.

    Example: activelr analyse toy-functions
    """
    _analyse("toy-functions", output_dir, track)


@app.command("sign-cases")
def sign_cases(output_dir: OutputDir = "outputs", track: Track = True) -> None:
    """Follow one weight where the sign of its gradient stays, and where it changes (Figure 1).

    Example: activelr analyse sign-cases
    """
    _analyse("sign-cases", output_dir, track)


@app.command("gain-operations")
def gain_operations(output_dir: OutputDir = "outputs", track: Track = True) -> None:
    """Simulate four pairs of operations on a gain over 10,000 epochs (Figure 13).

    Example: activelr analyse gain-operations
    """
    _analyse("gain-operations", output_dir, track)


@app.command("theorem-4-1")
def theorem_4_1(output_dir: OutputDir = "outputs", track: Track = True) -> None:
    """Check Theorem 4.1, on the sign of summed gradients, on convex problems.

    Example: activelr analyse theorem-4-1
    """
    _analyse("theorem-4-1", output_dir, track)


@app.command("theorem-5-1")
def theorem_5_1(output_dir: OutputDir = "outputs", track: Track = True) -> None:
    """Check Theorem 5.1, on one epoch of ActiveSGD against one of SGD, on convex problems.

    Example: activelr analyse theorem-5-1
    """
    _analyse("theorem-5-1", output_dir, track)


@app.command()
def carbon(
    output_dir: OutputDir = "outputs",
    track: Track = True,
    run: Annotated[str | None, typer.Option(help="A run to account for; without one, the paper's example.")] = None,
    search_runs: Annotated[int, typer.Option(min=1, help="Runs of the search that it replaces.")] = 9,
    watts: Annotated[float | None, typer.Option(min=0, help="Power of a device, where it was not measured.")] = None,
) -> None:
    """Account for energy and carbon of a run and of the search it replaces (section 7).

    Example: activelr analyse carbon --run digits --watts 65
    """
    if run is None:
        return _analyse("carbon", output_dir, track)
    root = output_root(output_dir)
    found = find_run(root, run)
    from activelr_service.service.analyze import analyze_run

    return print("\n".join(analyze_run(found, root, search_runs, watts, track)))


def _analyse(name: str, output_dir: str, track: bool) -> None:
    from activelr_service.service.analyze import analyze

    print("\n".join(analyze(name, output_root(output_dir), track)))
