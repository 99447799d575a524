"""Commands about studies and the paper: ``activelr study``, ``activelr report`` and ``activelr analyze``."""

from pathlib import Path
from typing import Annotated

import typer

from activelr_service.cli.job_commands import Overrides
from activelr_service.cli.stop import exit_on_signals
from activelr_service.config import read_study
from activelr_service.runs.run import find_run, output_root

ANALYSES = {
    "toy-functions": "Minimize the three functions of Figure 3 with Adam and with ActiveAdamW.",
    "sign-cases": "Follow one weight where the sign of its gradient stays the same, and where it changes (Figure 1).",
    "gain-operations": "Simulate four pairs of operations on a gain over 10,000 epochs (Figure 13).",
    "theorem-4-1": "Check Theorem 4.1, about the sign of summed gradients, on convex problems.",
    "theorem-5-1": "Check Theorem 5.1, which compares an epoch of ActiveSGD with one of SGD, on convex problems.",
}

analyses = typer.Typer(
    no_args_is_help=True, help="Repeat the analyses of the paper. Each gives a table, a figure and an MLflow run."
)

StudyFile = Annotated[Path, typer.Argument(help="The YAML file of the study.", show_default=False)]
Results = Annotated[
    str, typer.Argument(help="A study, an MLflow experiment, or a .csv or .parquet file.", show_default=False)
]
AnalysisDir = Annotated[str, typer.Option("--output-dir", help="The files go to DIR/analyses/NAME.")]
Track = Annotated[bool, typer.Option("--track/--no-track", help="Log the files to MLflow.")]


def study(
    study: StudyFile,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which trials would run and how long they would take, then stop.")
    ] = False,
) -> None:
    """Run the trials of a study and write its report. Run the command again to run the trials that are left.

    Example: activelr study configs/studies/invariance.yaml --dry-run
    """
    exit_on_signals()
    checked, source = read_study(study, overrides)
    from activelr_service.studies.run import run_study, show_study

    with source.locating():
        if dry_run:
            show_study(checked)
        else:
            run_study(checked)


def challenge(
    job: Annotated[Path, typer.Argument(help="The YAML file of a job.", show_default=False)],
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Settings of AdamW that the search draws.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings of each side.")] = 3,
    overrides: Overrides = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which trainings would run and how long they would take, then stop.")
    ] = False,
) -> None:
    """Train a job without a choice, and after a random search over AdamW. Prints who won, by how much, and at what cost.

    Run the command again to run the trainings that are left. More --trials continue the search.

    Example: activelr challenge job.yaml --trials 20
    """
    exit_on_signals()
    from activelr_service.studies.challenge import challenge as run_challenge
    from activelr_service.studies.challenge import read_challenge

    study, source = read_challenge(job, overrides, trials, seeds)
    with source.locating():
        lines = run_challenge(study, dry_run)
    print("\n".join(lines))


def prove(
    overrides: Overrides = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which trainings would run and how long they would take, then stop.")
    ] = False,
) -> None:
    """Repeat the table of the results: the default against a random search over AdamW, on six small tasks.

    It downloads nothing. Run the command again to run the trainings that are left.

    Example: activelr prove --set random_search.trials=20
    """
    exit_on_signals()
    from activelr_service.studies.challenge import challenge as run_challenge
    from activelr_service.studies.challenge import read_proof

    study, source = read_proof(overrides)
    with source.locating():
        lines = run_challenge(study, dry_run)
    print("\n".join(lines))


def report(
    results: Results,
    output: Annotated[Path, typer.Option("--output", help="The folder to write.")] = Path("report"),
    metric: Annotated[str | None, typer.Option("--metric", help="The column of the file that is the score.")] = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option("--higher-is-better/--lower-is-better", help="For a metric whose name does not tell it."),
    ] = None,
    output_dir: Annotated[str, typer.Option("--output-dir", help="The folder that holds the studies.")] = "outputs",
) -> None:
    """Compare how robust optimizers are. From a table of results it writes tables, figures and an HTML page.

    Example: activelr report results.csv --output report
    """
    from activelr_service.studies.table import report as write_report
    from activelr_service.studies.table import report_lines

    table = write_report(results, output, metric=metric, higher_is_better=higher_is_better, output_dir=output_dir)
    print("\n".join(report_lines(table, output)))


def _add_analysis(name: str, text: str) -> None:
    def command(output_dir: AnalysisDir = "outputs", track: Track = True) -> None:
        _analyze(name, output_dir, track)

    analyses.command(name, help=f"{text}\n\nExample: activelr analyze {name}")(command)


for _name, _text in ANALYSES.items():
    _add_analysis(_name, _text)


@analyses.command()
def carbon(
    output_dir: AnalysisDir = "outputs",
    track: Track = True,
    run: Annotated[str | None, typer.Option(help="The run to account for. Without it: the paper's example.")] = None,
    search_runs: Annotated[int, typer.Option(min=1, help="How many runs the search would need.")] = 9,
    watts: Annotated[
        float | None, typer.Option(min=0, help="Power of one device, if the energy was not measured.")
    ] = None,
) -> None:
    """Compute the energy and the carbon of a run, and of the search for a learning rate that it replaces (section 7).

    Example: activelr analyze carbon --run digits --watts 65
    """
    if run is None:
        return _analyze("carbon", output_dir, track)
    root = output_root(output_dir)
    found = find_run(root, run)
    from activelr_service.service.analyze import analyze_run

    return print("\n".join(analyze_run(found, root, search_runs, watts, track)))


def _analyze(name: str, output_dir: str, track: bool) -> None:
    from activelr_service.service.analyze import analyze

    print("\n".join(analyze(name, output_root(output_dir), track)))
