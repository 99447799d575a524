"""Commands about a trained model: ``predict``."""

from pathlib import Path
from typing import Annotated

import typer

from activelr_service.cli.run_commands import OutputDir

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run, the folder of an exported model, or models:/NAME/VERSION.", show_default=False
    ),
]


def predict(
    model: Model,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="The raw input.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv, .parquet or .jsonl file to write.")],
    output_dir: OutputDir = "outputs",
) -> None:
    """Answer raw input with a trained model, and write the answers as a table.

    Example: activelr predict flowers photos --output answers.csv
    """
    raise NotImplementedError
