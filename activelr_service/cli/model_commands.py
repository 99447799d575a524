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
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A table, a folder or list of images, a .npz file, a text of one prompt a line, or - for lines on stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .csv, .parquet or .jsonl file to write.", show_default=False)
    ],
    keep: Annotated[
        list[str], typer.Option("--keep", metavar="COLUMN", help="A column of the input to copy. Repeat it for more.")
    ] = [],  # noqa: B006 - typer copies it
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Rows the model sees at once.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=0, help="Tokens at most that follow a text.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Such as cpu or cuda:1; a GPU if there is one.", show_default=False)
    ] = None,
    output_dir: OutputDir = "outputs",
) -> None:
    """Answer raw input with a trained model, and write the answers as a table.

    Example: activelr predict flowers photos --output answers.csv
    """
    from activelr_service.service.predict import Options, predict

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    options = Options(batch_size, tuple(keep), overwrite, max_new_tokens)
    answered = predict(model, output_dir, source, output, device, options)
    errors = f", {answered.bad:,} with an error" if answered.bad else ""
    rows = "1 row" if answered.rows == 1 else f"{answered.rows:,} rows"
    print(f"{rows} answered{errors}: {output}")


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
    if half and done.precision != "float16":
        print("the weights are float16 and the computation is float32: in float16 alone the answers differed too much")
    allowed = f"at most {done.difference:.1e}, where {done.tolerance:g} is allowed"
    rows = "one row" if done.rows == 1 else f"{done.rows} rows"
    print(f"checked on {rows} of the validation data: its answers differ from the model's by {allowed}")


def _leave(number: int, frame: FrameType | None) -> None:
    """End by ``SystemExit``, so that no server and no half-written file stays. A second signal changes nothing."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)
