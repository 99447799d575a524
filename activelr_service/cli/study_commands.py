"""Commands about studies: ``activelr study`` and ``activelr report``."""

from pathlib import Path
from typing import Annotated

import typer

from activelr_service.api import write_report
from activelr_service.cli.signals import exit_on_signals
from activelr_service.config import read_study

StudyFile = Annotated[Path, typer.Argument(help="The YAML study.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="A.B=VALUE", help="Override a value of the study; repeatable.")
]
Results = Annotated[
    str, typer.Argument(help="A study, an MLflow experiment, or a .csv or .parquet file.", show_default=False)
]


def study(
    study: StudyFile,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and cost, and stop.")] = False,
) -> None:
    """Run a study's trials and write its report; run again, it goes on with what is left.

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


def report(
    results: Results,
    output: Annotated[Path, typer.Option("--output", help="The folder to write.")] = Path("report"),
    metric: Annotated[str | None, typer.Option("--metric", help="The column of a file that is the score.")] = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option("--higher-is-better/--lower-is-better", help="Of a metric whose name does not say it."),
    ] = None,
    output_dir: Annotated[str, typer.Option("--output-dir", help="Where the studies are.")] = "outputs",
) -> None:
    """Say how robust optimizers are, from results: tables, figures and a page.

    Example: activelr report results.csv --output report
    """
    table = write_report(results, output, metric=metric, higher_is_better=higher_is_better, output_dir=output_dir)
    from activelr_service.report import summary_lines

    print("\n".join(summary_lines(table)))
    print(f"{output / 'report.html'}")
