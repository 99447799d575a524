"""Runs on disk in words: a row of ``activelr list``, the lines of ``activelr status``."""

from typing import Any

from activelr_service.config import TrainJob
from activelr_service.errors import RunDamagedError
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.tracking.store import is_embedded

COLUMNS = ("run", "status", "epochs", "score", "MLflow run", "reason")


def run_row(run: Run) -> list[str]:
    """What the columns say of a run. One that cannot be read is damaged, with the reason."""
    try:
        state, history, job = run.state(), read_journal(run.journal), run.job()
        status = run.status()
    except RunDamagedError as error:
        return [run.label, "damaged", "", "", "", _without_label(str(error), run)]
    return [
        run.label,
        status,
        _how_far(history, job),
        _score(state),
        state.get("mlflow_run_id", ""),
        _reason(state, run),
    ]


def run_lines(run: Run) -> list[str]:
    """What there is to know of a run. Raises :class:`RunDamagedError` if it cannot be read."""
    state, history, job = run.state(), read_journal(run.journal), run.job()
    attempts = f", attempt {state['attempts']}" if state.get("attempts", 1) > 1 else ""
    last = run.log.read_text(errors="replace").splitlines()[-1:] if run.log.exists() else []
    facts = {
        "reason": _reason(state, run),
        "epochs": _how_far(history, job),
        "best": f"{_score(state)}, at epoch {state['best_epoch']}" if _score(state) else "",
        "process": f"{state.get('pid')} on {state.get('host')}" if run.is_active() else "",
        "model": " ".join([str(run.model), *_in_brackets(state.get("model_uri"))]) if run.model.exists() else "",
        "MLflow": _where(run, job, state),
        "folder": str(run.folder),
        "log": "".join(last),
    }
    shown = [f"  {name:<8} {text}" for name, text in facts.items() if text]
    return [f"{run.label}: {run.status()}{attempts}", *shown]


def _how_far(history: list[Record], job: TrainJob) -> str:
    if not history:
        return f"0 of {job.duration}"
    return job.duration.describe(history[-1].position).removeprefix("epoch").strip()


def _score(state: dict[str, Any]) -> str:
    return f"{state['score_name']} {state['score']:.4f}" if state.get("score") is not None else ""


def _reason(state: dict[str, Any], run: Run) -> str:
    return _without_label((state.get("reason") or "").partition("\n")[0], run)


def _without_label(text: str, run: Run) -> str:
    return text.removeprefix(f"run {run.label} ").removeprefix("is damaged: ")


def _in_brackets(uri: str | None) -> list[str]:
    return [f"({uri} in MLflow)"] if uri else []


def _where(run: Run, job: TrainJob, state: dict[str, Any]) -> str:
    uri = job.tracking.uri or ""
    place = f"activelr ui --output-dir {run.folder.parent.parent}" if is_embedded(uri) else uri
    rest = "" if state.get("tracked") else ", which has not got all of it yet"
    return f"{place}  (run {state['mlflow_run_id']}{rest})" if state.get("mlflow_run_id") else ""
