"""Several runs side by side: what each reached, which settings differ, and what makes a comparison of them unfair."""

import json
from typing import Any

from activelr_service.config import ResolvedJob
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record, elapsed
from activelr_service.runs.run import Run
from activelr_service.runs.score import best_record

LONGEST_VALUE = 40  # characters of a setting in the table


def labels_of(runs: list[Run]) -> list[str]:
    """``NAME/NUMBER`` of each run. Those of different output directories that share it get more of their folder, or all."""
    for depth in (2, 3):
        labels = ["/".join(run.folder.parts[-depth:]) for run in runs]
        if len(set(labels)) == len(labels):
            return labels
    return [str(run.folder) for run in runs]


def describe_result(run: Run) -> dict[str, Any]:
    """What a run is and what it reached, as plain values; those that are not known yet are None.

    Raises :class:`RunDamagedError` if the run cannot be read.
    """
    state, job, history = run.state(), run.job(), read_journal(run.journal)
    score, best = best_record(history, job)
    last = history[-1] if history else None
    return {
        "status": run.status(),
        "task": job.task,
        "data": describe_data(job),
        "model": model_name(job),
        "optimizer": job.optimizer.type,
        "score": score,
        "best": best.metrics.get(score) if best else None,
        "best_epoch": best.epoch if best else None,
        "last": last.metrics.get(score) if last else None,
        "test": ((state.get("test") or {}).get("metrics") or {}).get(score.removeprefix("val/")),
        "epochs": last.epoch if last else 0,
        "steps": last.global_step if last else 0,
        "seconds": elapsed(history) if history else 0.0,
        "samples_per_second": _speed(history),
    }


def model_name(job: ResolvedJob) -> str:
    """``resnet18`` for a model that has a name, else its type."""
    return str(getattr(job.model, "name", None) or getattr(job.model, "path", None) or job.model.type)


def describe_data(job: ResolvedJob) -> str:
    """The place of the data of a job, or their type if they come with a package."""
    return str(getattr(job.data, "path", None) or getattr(job.data, "root", None) or job.data.type)


def differing_settings(runs: list[Run]) -> dict[str, list[str]]:
    """The settings whose values differ, by their dotted keys: a text for each run, in order.

    Keys that only some of the models or optimizers have are shown if a job gives them. What is derived from the data, such
    as the columns of a table, is left out, and so are the name and the places of a run.
    """
    places = {"kind", "name", "output_dir", "tracking"}
    flat = [_flatten(run.job().model_dump(mode="json", exclude=places)) for run in runs]
    written = [_flatten(run.written_job().model_dump(mode="json", exclude_defaults=True)) for run in runs]
    given = {key for values in written for key in values}
    keys = dict.fromkeys(key for values in flat for key in values)
    known = [key for key in keys if key in given or (not key.startswith("data.") and all(key in one for one in flat))]
    shown = {key: [_shorten(values.get(key)) for values in flat] for key in known}
    return {key: values for key, values in shown.items() if len(set(values)) > 1}


def doubts(runs: list[Run], results: list[dict[str, Any]]) -> list[str]:
    """Lines on what a person must know before they compare the scores of the runs."""
    lines = []
    if len({(result["task"], result["score"]) for result in results}) > 1:
        kinds = dict.fromkeys(f"{result['score']} ({result['task']})" for result in results)
        lines.append(f"the runs are measured by different scores, which do not compare: {', '.join(kinds)}")
    elif len({_validated_on(run) for run in runs}) > 1:
        lines.append("the runs are validated on different data, so that their scores need not compare")
    if none := [label for label, result in zip(labels_of(runs), results, strict=True) if not result["epochs"]]:
        lines.append(f"no epoch has ended yet, so that there is nothing to draw: {', '.join(none)}")
    return lines


def _validated_on(run: Run) -> str:
    """A text that differs for runs whose validation samples differ, as far as it is known."""
    data = run.read_data() or {"fingerprint": None, "info": {}}
    files = data["fingerprint"] or {"content": describe_data(run.job())}
    return f"{files['content']} {data['info'].get('num_val')} {data['info'].get('input_shape')}"


def _speed(history: list[Record]) -> float | None:
    """Training samples a second, over all epochs, without their evaluations."""
    known = [metrics for record in history if (metrics := record.metrics).get("perf/samples_per_sec")]
    known = [metrics for metrics in known if "perf/samples" in metrics]
    seconds = sum(metrics["perf/samples"] / metrics["perf/samples_per_sec"] for metrics in known)
    return sum(metrics["perf/samples"] for metrics in known) / seconds if seconds else None


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _shorten(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"...{text[3 - LONGEST_VALUE :]}"
