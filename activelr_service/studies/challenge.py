"""``activelr challenge``: is a job as good without a choice as after a random search over AdamW, and what does each cost?

A challenge is a study of one workload, with a random search. So it can be continued, and it stands in MLflow as any study.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from activelr_service.config import StudyJob
from activelr_service.config.load import JobSource, parse_job, parse_study, read_document
from activelr_service.errors import CommandError, JobError, Problem
from activelr_service.reports.statistics import expected_best
from activelr_service.reports.trials import trials_of
from activelr_service.runs.files import write_text
from activelr_service.studies.run import run_study, show_study
from activelr_service.studies.space import BEST, SEARCHED_LABEL, draw_settings
from activelr_service.studies.table import read_results
from activelr_service.studies.verdict import Result, Side, count, result_lines, table_lines

DEFAULT = {"type": "active_adamw"}
OF_THE_STUDY = ("kind", "name", "optimizer", "seed", "workers", "tracking", "output_dir")  # not part of a workload
PROOF = Path(__file__).with_name("proof.yaml")
POWERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # sizes of a search that are shown


def read_challenge(path: Path, overrides: Sequence[str], trials: int, seeds: int) -> tuple[StudyJob, JobSource]:
    """The study of a job's file: the job's own ActiveLR optimizer, or ``active_adamw``, against AdamW at ``trials`` random
    settings, each with ``seeds`` seeds. Raises :class:`JobError`, with the place in the file, for what a study refuses."""
    data, source = read_document(path, overrides)
    with source.locating():
        job = parse_job(data)
        if job.duration.seconds is not None:
            text = "a challenge must not depend on how busy the machine is; give epochs or budget.steps"
            raise JobError([Problem(("budget", "time"), text)])
        if job.early_stop is not None:
            text = "all trainings of a challenge take their whole length; leave it out, or add --set early_stop=null"
            raise JobError([Problem(("early_stop",), text)])
        own = data.get("optimizer", {})
        own = {"type": own} if isinstance(own, str) else own
        is_active = str(own.get("type", "")).startswith("active_") and own.get("rule", "robust") == "robust"
        workload = {key: value for key, value in data.items() if key not in OF_THE_STUDY}
        study: dict[str, Any] = {
            "kind": "study",
            "name": f"challenge-{job.name}",
            "workloads": {job.name: workload},
            "optimizers": [own if is_active else DEFAULT],
            "random_search": {"trials": trials},
            "seeds": list(range(seeds)),
            **{key: data[key] for key in ("tracking", "output_dir") if key in data},
        }
        return parse_study(study), source


def read_proof(overrides: Sequence[str]) -> tuple[StudyJob, JobSource]:
    """The study of ``activelr prove``, which comes with the package. Raises :class:`JobError` for a wrong override."""
    data, source = read_document(PROOF, overrides)
    with source.locating():
        return parse_study(data), source


def challenge(study: StudyJob, is_dry: bool) -> list[str]:
    """Run what is left of a challenge. Returns lines that say who won, by how much, and at what cost."""
    seeds = count(len(study.seeds), "seed")
    if is_dry:
        show_study(study)
        return [f"after them the winner of each search is trained with {seeds}"]
    folder = run_study(study)
    table, _ = read_results(str(folder.path), study.output_dir, None, None)
    trials = trials_of(table)
    results = [read_result(trials[trials["workload"] == name].reset_index(), study) for name in study.workloads]
    lines = [line for result in results for line in (*result_lines(result), "")]
    lines += [*table_lines(results), ""] if len(results) > 1 else []
    write_text(folder.report / "challenge.txt", "\n".join(lines))
    return [*lines, f"all trainings: {folder.report / 'results.csv'}; these lines: {folder.report / 'challenge.txt'}"]


def read_result(trials: DataFrame, study: StudyJob) -> Result:
    """What came out on a workload, from its trials. Raises :class:`CommandError` if there is nothing to compare."""
    names = trials["optimizer"]
    searched, winner = trials[names == SEARCHED_LABEL], trials[names.str.startswith(BEST)]
    default = trials[(names != SEARCHED_LABEL) & ~names.str.startswith(BEST)]
    if winner.empty or default.empty:
        side = "the default" if default.empty else f"the {count(len(searched), 'trial')} of the search"
        raise CommandError(f"{study.name}: {side} left no result: there is nothing to compare")
    is_test = bool(trials["test_score"].notna().any())
    column = "test_score" if is_test else "score"
    higher, metric = bool(trials["higher_is_better"].iloc[0]), str(trials["metric"].iloc[0])
    found = searched["score"].dropna().to_numpy()
    sizes = sorted({*(k for k in POWERS if k < len(searched)), len(searched)})
    return Result(
        str(trials["workload"].iloc[0]),
        metric.replace("val_", "test_" if is_test else "validation ", 1).replace("_", " "),
        higher,
        is_test,
        _side(default, column, 1, 0.0),
        _side(winner, column, 1 + len(searched), float(searched["seconds"].sum())),
        settings_of(study, int(searched.loc[_best(searched, higher), "random_trial"])),
        int((searched["status"] != "finished").sum()),
        [(k, expected_best(found, k, higher)) for k in sizes],
    )


def _side(trials: DataFrame, column: str, trainings: int, seconds: float) -> Side:
    scores, name = trials.sort_values("seed")[column].to_numpy(float), str(trials["optimizer"].iloc[0])
    if missing := int(np.isnan(scores).sum()):
        text = f"{missing} of the {count(len(scores), 'training')} of {name} left no score"
        raise CommandError(f"{text}: there is nothing to compare; the same command runs those that failed again")
    return Side(name, scores, trainings, seconds + float(trials["seconds"].mean()))


def _best(searched: DataFrame, higher_is_better: bool) -> Any:
    finished = searched[searched["status"] == "finished"]["score"]
    return finished.idxmax() if higher_is_better else finished.idxmin()


def settings_of(study: StudyJob, number: int) -> str:
    """The settings of a trial of the search, as a job writes them."""
    if study.random_search is None or not math.isfinite(number):
        return ""
    found = draw_settings(study.random_search, number)
    return ", ".join(f"{name}: {value}" for name, value in found.items())
