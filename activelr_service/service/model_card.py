"""The model card, ``model/README.md``: what a model is, what it was measured on, its limits, and how to load it.

Its parts are those of Mitchell et al. (2019), "Model Cards for Model Reporting", as far as a run knows them.
"""

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version

from activelr_service.config import ResolvedJob
from activelr_service.config.task import metrics_of_task
from activelr_service.data.info import DataInfo
from activelr_service.export.model import RECIPE
from activelr_service.runs.files import write_text
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.service.datasets import data_digest, dataset_name
from activelr_service.tracking.registry import CHAMPION, ModelFacts

CARD = "README.md"
PACKAGES = ("activelr-service", "torch", "torchvision", "transformers", "timm", "numpy")
COUNTS = ("count", "skipped")  # of samples: the section on the data has them
KINDS = {"table": "rows of a table", "text": "text", "stdlib_chars": "text", "npz": "arrays", "python": "samples"}
INPUTS = {"rows of a table": "rows.csv", "text": "text.txt", "arrays": "rows.npz", "images": "photos/"}
TASKS = {"language_modeling": "Language modeling", "detection": "Detection of objects"}
_MARKS = re.compile(r"([\\`*_\[\]<>|#~&$!{}])")
_LIST_MARKS = re.compile(r"^(\d*)([.)+-])(?=\s|$)")


def write_card(run: Run, info: DataInfo) -> None:
    """Write the card of an exported model beside it. Its run must have a ``best_epoch``."""
    write_text(run.model / CARD, make_card(run, info))


def model_facts(run: Run, job: ResolvedJob) -> ModelFacts:
    """What MLflow shows of the exported model of a run."""
    state, best = run.state(), _best(run)
    card = run.model / CARD
    return ModelFacts(
        run=run.label,
        task=job.task,
        epoch=best.epoch,
        timestamp_ms=best.timestamp_ms,
        score_name=state["score_name"],
        score=state.get("score"),
        higher_is_better=metrics_of_task(job.task, job.metric).higher_is_better,
        metrics={
            "validation": {name: value for name, value in best.metrics.items() if name.startswith("val/")},
            "test": {f"test/{name}": value for name, value in _test_metrics(run).items()},
        },
        datasets={split: dataset_name(job, split) for split in ("validation", "test")},
        fingerprint=data_digest(run, job),
        card=card.read_text() if card.exists() else "",
    )


def escape(text: str) -> str:
    """The text in one line that Markdown shows as it is."""
    plain = _MARKS.sub(r"\\\1", " ".join(text.split()))
    return _LIST_MARKS.sub(r"\1\\\2", plain)


def make_card(run: Run, info: DataInfo) -> str:
    """The card as Markdown. ``info`` describes the data of the run."""
    job = run.job()  # it has the batch size that the workers found
    best, history = _best(run), read_journal(run.journal)
    kind = KINDS.get(job.data.type, "images")
    parts = [
        [f"# {escape(job.name)}", "", _summary(run, job, info, kind)],
        ["## Data", "", *_data(job, info)],
        ["## Metrics", "", *_metrics(run, best, history)],
        ["## Limits", "", *_limits(run, info, kind, job.task)],
        ["## How it was trained", "", *_training(run, job, history)],
        ["## How to load it", "", *_loading(run, job, kind)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _best(run: Run) -> Record:
    epoch = run.state()["best_epoch"]
    return next(record for record in read_journal(run.journal) if record.epoch == epoch)


def _test_metrics(run: Run) -> dict[str, float]:
    """The metrics on the test split; empty if there is none, or if it could not be measured."""
    return (run.state().get("test") or {}).get("metrics", {})  # type: ignore[no-any-return]


def _summary(run: Run, job: ResolvedJob, info: DataInfo, kind: str) -> str:
    name = getattr(job.model, "name", None)
    model = f"`{job.model.type}`" + (f" ({escape(name)})" if name else "")
    task = TASKS.get(job.task, escape(job.task.replace("_", " ")).capitalize())
    classes = f" It knows {len(info.classes):,} classes: {_some(info.classes)}." if info.classes else ""
    maker = f"The run `{run.label}` of activelr-service {version('activelr-service')} trained it."
    return f"{task} of {kind} by a model of the type {model}. {maker}{classes}"


def _some(names: tuple[str, ...], most: int = 20) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(escape, names[:most])) + more


def _data(job: ResolvedJob, info: DataInfo) -> list[str]:
    notes = [f"- {escape(line)}" for line in (info.describe(), *info.notes)]
    if not info.warnings:
        return notes
    return [*notes, "", "Worth a second look:", "", *(f"- {escape(line)}" for line in info.warnings)]


def _metrics(run: Run, best: Record, history: list[Record]) -> list[str]:
    measured = _measured(run, best)
    names = dict.fromkeys(name for metrics in measured.values() for name in metrics)
    rows = [
        f"| {escape(name)} | " + " | ".join(_number(metrics.get(name)) for metrics in measured.values()) + " |"
        for name in names
    ]
    of = f"Epoch {best.epoch} of {len(history)}, the best one by `{run.state()['score_name']}`."
    header = ["| metric | " + " | ".join(measured) + " |", "| --- |" + " ---: |" * len(measured)]
    return [of, "", *header, *rows, *_calibration(run)] if rows else [of]


def _measured(run: Run, best: Record) -> dict[str, dict[str, float]]:
    """The metrics of the best epoch on the validation split, and on the test split where there is one."""
    val = {name[4:]: value for name, value in best.metrics.items() if name.startswith("val/")}
    splits = {"validation": val, "test": _test_metrics(run)}
    return {
        split: {name: value for name, value in metrics.items() if name not in COUNTS}
        for split, metrics in splits.items()
        if metrics
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _calibration(run: Run) -> list[str]:
    temperature = json.loads((run.model / RECIPE).read_text()).get("temperature", 1.0)
    if temperature == 1:
        return []
    text = "The probabilities are calibrated: the logits are divided by the temperature"
    return ["", f"{text} {temperature:.4g}, which was fitted on the validation samples."]


def _limits(run: Run, info: DataInfo, kind: str, task: str) -> list[str]:
    chosen = "The validation samples chose the epoch, so their numbers are a little better than those of new data."
    rest = (
        "The test samples were not looked at before the end." if _test_metrics(run) else "No test split was measured."
    )
    lines = [
        f"{chosen} {rest}",
        "Nothing was measured on data of another source, place or time, or by groups of people.",
    ]
    if kind == "rows of a table":
        lines.append("A missing number counts as the mean of the training rows, and an unknown category as none.")
    if info.classes and task == "detection":
        lines.append("Every box has one of the classes above. Other objects are missed, or taken for one of them.")
    elif info.classes:
        lines.append("Every answer is one of the classes above, also for an input that shows none of them.")
    return [f"- {line}" for line in (*lines, *(escape(warning) for warning in info.warnings if "class" in warning))]


def _training(run: Run, job: ResolvedJob, history: list[Record]) -> list[str]:
    last, rule = history[-1], getattr(job.optimizer, "rule", None)
    facts = {
        "optimizer": job.optimizer.type + (f" ({rule} rule)" if rule else ""),
        "length": f"{_count(len(history), 'epoch')}, {_count(last.global_step, 'optimizer step')}",
        "batch size": f"{job.global_batch_size:,}" if job.global_batch_size else "",
        "workers": str(job.workers.num_workers),
        "precision": job.precision,
        "seed": str(job.seed),
        "digest of the data": data_digest(run, job),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
    }
    return ["| | |", "| --- | --- |", *(f"| {name} | {escape(text)} |" for name, text in facts.items() if text)]


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _loading(run: Run, job: ResolvedJob, kind: str) -> list[str]:
    given = INPUTS.get(kind)
    lines = []
    if given:
        lines += ["```sh", f"activelr predict {run.label} {given} --output answers.csv", "```", ""]
    lines += ["In Python, with the folder that holds this file:", "", "```python"]
    lines += ["from activelr_service import Predictor", ""]
    lines += ['predictor = Predictor.load("model")', "answers = predictor.predict(predictor.example())", "```"]
    if job.tracking.backend == "none":
        return lines
    lines += [
        "",
        "With MLflow alone, where `MLFLOW_TRACKING_URI` names the store of the run. The alias is on the best model of",
    ]
    lines += ["this name, which may come from another run:", "", "```python"]
    return [*lines, "import mlflow", "", f'model = mlflow.pyfunc.load_model("models:/{job.name}@{CHAMPION}")', "```"]
