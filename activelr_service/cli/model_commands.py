"""Commands about a trained model: ``predict``, ``serve`` and ``export``."""

import signal
import sys
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from activelr_service.cli.run_commands import OutputDir

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run, the folder of an exported model, or models:/NAME/VERSION.", show_default=False
    ),
]


class Format(StrEnum):
    onnx = "onnx"
    torch = "torch"


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


def serve(
    model: Model,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 5001,
    host: Annotated[str, typer.Option(help="The address to listen at; without authentication.")] = "127.0.0.1",
    output_dir: OutputDir = "outputs",
) -> None:
    """Serve a trained model over HTTP on this machine, by MLflow's own server. Ctrl-C ends it.

    Example: activelr serve flowers --port 5001
    """
    from activelr_service.service.exported import find_exported
    from activelr_service.service.serve import serve_model

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    serve_model(find_exported(model, output_dir), host, port)


def export(
    model: Model,
    kind: Annotated[Format, typer.Option("--format", help="ONNX, or a program of torch.export.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file. Without it: model.onnx or model.pt2 in the run.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights and computation in half precision.")] = False,
    output_dir: OutputDir = "outputs",
) -> None:
    """Write a trained model as one file for other programs. Its answers are checked on real rows first.

    Example: activelr export flowers --format onnx
    """
    from activelr_service.service.exported import export_model

    done = export_model(model, output_dir, kind.value, output, half)
    print(f"exported to {done.path}; {done.description.name} says what it takes and gives")
    allowed = f"at most {done.difference:.1e}, where {done.tolerance:g} is allowed"
    print(f"checked on {done.rows} rows of the validation data: its answers differ from the model's by {allowed}")


def _leave(number: int, frame: FrameType | None) -> None:
    """End by ``SystemExit``, so that the server is ended first. A second signal changes nothing."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)
