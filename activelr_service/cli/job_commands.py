"""Commands about the documents themselves: ``activelr init`` and ``activelr schema``."""

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from activelr_service.config import StudyJob, TrainJob
from activelr_service.errors import CommandError

STARTER = """\
# A training job. Everything that is not here is derived when it runs, and logged: no learning rate, no batch size.
kind: train
name: {name}
model: {{type: torchvision, name: resnet18}}
data: {{type: digits}}            # or {{type: imagefolder, root: PATH}}, {{type: npz, path: PATH}}
epochs: 20                        # or budget: {{time: 2h}}, or {{steps: 10000}}
# optimizer: {{type: active_adamw}}   # or active_sgd, active_radam, active_belief
# workers: {{num_workers: 2}}
# `activelr schema` lists every key.
"""


def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("job.yaml")) -> None:
    """Write a job to start from.

    Example: activelr init job.yaml
    """
    if path.exists():
        raise CommandError(f"{path} exists; give another name")
    try:
        path.write_text(STARTER.format(name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:63] or "job"))
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
    shown = shlex.quote(str(path))
    print(f"{path} written; next: activelr validate {shown}, then activelr train {shown}")


def schema(
    kind: Annotated[Literal["train", "study"], typer.Argument(help="The kind of document.")] = "train",
) -> None:
    """Print the JSON Schema of a job or a study, for editors.

    Example: activelr schema > job.schema.json
    """
    model = TrainJob if kind == "train" else StudyJob
    print(json.dumps(model.model_json_schema(), indent=1))
