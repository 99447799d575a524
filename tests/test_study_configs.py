"""Every study that ships can be planned as it stands, and a trial of its small version runs on generated data."""

import math
import re
import subprocess
import sys

import pytest

from activelr_service.config import read_study
from activelr_service.studies.plan import make_plan
from activelr_service.studies.space import make_trials
from activelr_service.studies.trial import run_trial
from tests.conftest import ROOT
from tests.test_paper_configs import WRITERS

pytestmark = pytest.mark.slow

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Makes the root of generated data of a type, once."""
    folder = tmp_path_factory.mktemp("data")

    def root_of(kind):
        if not (folder / kind).exists():
            WRITERS[kind](folder / kind)
        return folder / kind

    return root_of


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The folder with the tables that the line of docs/results.md writes."""
    folder = tmp_path_factory.mktemp("tables")
    page = (ROOT / "docs" / "results.md").read_text()
    (line,) = re.findall(r'^python -c "(from sklearn.*)"$', page, re.MULTILINE)
    subprocess.run([sys.executable, "-c", line], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_trials_of_a_study_are_jobs(path):
    study, _ = read_study(path)
    trials = make_trials(study)
    labels = {trial.optimizer for trial in trials}
    assert any(label.startswith("active_") for label in labels)
    assert not labels <= {label for label in labels if label.startswith("active_")}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_trial_of_the_small_version_runs(path, data, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tables)
    small, _ = read_study(path, ["preset=smoke"])
    roots = []
    for name, workload in small.workloads.items():
        if workload["data"]["type"] in WRITERS:
            roots.append(f"workloads.{name}.data.root={data(workload['data']['type'])}")
    study, _ = read_study(path, ["preset=smoke", f"output_dir={tmp_path}", *roots])
    plan = make_plan(study)
    assert not plan.refused
    outcome = run_trial(*next(iter(plan.ready.values())))
    assert (outcome.status, outcome.reason) == ("finished", "")
    assert math.isfinite(outcome.rows[-1]["train/loss"])


@pytest.mark.parametrize(
    ("name", "first_id"),
    [
        ("ablation", "51d19720886345bb"),
        ("digits_grid", "d1e6e0081e65eba4"),
        ("small_tables", "a0499b8fa27b065b"),
        ("wikitext2_gpt2", "a4a233b83a1d3c5f"),
    ],
)
def test_a_new_key_of_jobs_leaves_the_ids_of_trials_as_they_were(name, first_id):
    study, _ = read_study(ROOT / "configs" / "studies" / f"{name}.yaml")
    assert make_trials(study)[0].id == first_id
