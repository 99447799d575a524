"""Commands about a job file: ``init``, ``validate``, ``schema``, ``train`` and ``submit``.

A command reads and checks its file first. Libraries that take seconds to import come after that.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from activelr_service.cli.cluster_commands import submit_document
from activelr_service.cli.stop import exit_on_signals
from activelr_service.config import StudyJob, TrainJob, read_job, read_job_or_study
from activelr_service.errors import CommandError, MissingPackageError, naming_missing_packages

STARTER = """\
# A training job. What is not written here is derived when the job runs, and logged: you choose no learning rate and no
# batch size.
kind: train
name: {name}
model: {{type: torchvision, name: resnet18}}
data: {{type: digits}}            # or {{type: imagefolder, root: PATH}}, {{type: npz, path: PATH}}
epochs: 20                        # or budget: {{time: 2h}}, or {{steps: 10000}}
# optimizer: {{type: active_adamw}}   # or active_muon, active_sgd, active_radam, active_belief
# workers: {{num_workers: 2}}
# `activelr schema` lists every key.
"""

JOB_SUFFIXES = (".yaml", ".yml", ".json", "")  # every other file is data

Target = Annotated[
    str | None, typer.Option("--target", metavar="COLUMN", help="For a table without a job: the column to predict.")
]
JobOrData = Annotated[
    Path, typer.Argument(help="The YAML file of the job, or data to propose a job for.", show_default=False)
]
JobFile = Annotated[Path, typer.Argument(help="The YAML file of the job.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="A.B=VALUE", help="Override one value of the file. Repeat it for more.")
]


def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("job.yaml")) -> None:
    """Write a job file to start from.

    Example: activelr init job.yaml
    """
    if path.exists():
        raise CommandError(f"{path} exists already; give another name")
    try:
        path.write_text(STARTER.format(name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:63] or "job"))
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
    shown = shlex.quote(str(path))
    print(f"{path} written; next: activelr validate {shown}, then activelr train {shown}")


def validate(
    job: JobOrData,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    target: Target = None,
    data: Annotated[
        bool, typer.Option("--data", help="Decode every image, and print what was found in the data.")
    ] = False,
) -> None:
    """Check a job and its data without training. It finds every error that would stop the job before its first step.

    Example: activelr validate job.yaml --data
    """
    job = _job_file(job, overrides, target)
    checked, source = read_job(job, overrides)
    from activelr_service.service.prepare import FILES_DECODED, describe_data, validate_job

    try:
        with source.locating(), naming_missing_packages("activelr validate"):
            found = validate_job(checked, None if data else FILES_DECODED)
    except MissingPackageError as error:  # a machine that trains nothing can check what is written
        text = f"{job} is valid as it is written: {checked.name}, {checked.duration}"
        return print(f"{text}; its data and model are not checked: {error}")
    if found is None:
        return print(f"{job} is valid: {checked.name}, {checked.duration}; its data are checked once fetched")
    print(f"{job} is valid: {checked.name}, {found.job.task}, {checked.duration}; {found.info.describe()}")
    shown = describe_data(found.info) if data else [f"warning: {warning}" for warning in found.info.warnings]
    return print(*(f"  {line}\n" for line in shown), sep="", end="")


def schema(
    kind: Annotated[Literal["train", "study"], typer.Argument(help="The kind of file.")] = "train",
) -> None:
    """Print the JSON Schema of a job or of a study, for editors.

    Example: activelr schema > job.schema.json
    """
    model = TrainJob if kind == "train" else StudyJob
    print(json.dumps(model.model_json_schema(), indent=1))


def train(job: JobOrData, overrides: Overrides = [], target: Target = None) -> None:  # noqa: B006
    """Train a job to its end. If an earlier run of the same job is unfinished, continue that run.

    Without a YAML file: name a file or folder of data. A job for them is written and shown first.

    Example: activelr train job.yaml --set epochs=5
    """
    exit_on_signals()  # before the imports, which take seconds
    from activelr_service.service.launch import train as train_job

    train_job(_job_file(job, overrides, target), overrides)


def _job_file(path: Path, overrides: list[str], target: str | None) -> Path:
    """The file of the job: ``path`` itself, or one that is written for the data at ``path``."""
    is_data = path.is_dir() or (path.is_file() and path.suffix.lower() not in JOB_SUFFIXES)
    if not is_data:
        if target is not None:
            raise CommandError(f"--target is for data; {path} is a job, whose target is data.target")
        return path
    from activelr_service.service.propose import propose_job

    with naming_missing_packages("activelr train"):
        file, lines = propose_job(path, overrides, target)
    print(*lines, sep="\n")
    return file


def submit(
    job: JobFile,
    address: Annotated[
        str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="The dashboard of the cluster.")
    ] = "http://127.0.0.1:8265",
    overrides: Overrides = [],  # noqa: B006
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print the log until the job ends.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow plain http to another machine.")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not look for the data on this machine.")] = False,
) -> None:
    """Send a job or a study to a Ray cluster.

    Example: activelr submit job.yaml --address http://127.0.0.1:8265 --follow
    """
    checked, source = read_job_or_study(job, overrides)
    with source.locating():
        submit_document(address, checked, follow=follow, insecure=insecure, check=not no_check)
