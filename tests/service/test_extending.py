"""Data, a model, an optimizer and a task from outside of the package: the code of docs/extending.md, executed."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import PATIENCE_S, ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()


def block(language):
    """The one block of code of the page in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the package of the page, installed as pip would do it, and the job."""
    folder = tmp_path_factory.mktemp("lab")
    project = tomllib.loads(block("toml"))["project"]
    metadata = folder / f"my_lab-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [
        line for group, names in groups for line in (f"[{group}]", *(f"{name} = {at}" for name, at in names.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "my_lab.py").write_text(block("python"))
    (folder / "job.yaml").write_text(block("yaml"))
    return folder


def run_in(folder, *command):
    path = os.pathsep.join([str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PREDICT = """
import sys, torch
from activelr_service.export.model import load_model
print(load_model(sys.argv[1])(torch.zeros(3, 2)).shape)
"""


def test_the_page_s_data_model_optimizer_and_task_are_trained_exported_and_evaluated_in_one_run(lab):
    one = ("--set", "workers.num_workers=1", "--set", "global_batch_size=32")
    activelr = ("-m", "activelr_service.cli")
    assert "job.yaml is valid: waves, huber, 5 epochs" in run_in(lab, *activelr, "validate", "job.yaml")
    assert "best val/error" in run_in(lab, *activelr, "train", "job.yaml", *one)
    losses = [
        json.loads(line)["metrics"]["train/loss"]
        for line in (lab / "outputs" / "waves" / "001" / "journal.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0] / 2, "it learns"
    metrics = json.loads(run_in(lab, *activelr, "evaluate", "waves", "--json"))["validation"]
    assert metrics["error"] > 0
    assert metrics["count"] == 128
    assert "[3, 1]" in run_in(lab, "-c", PREDICT, str(lab / "outputs" / "waves" / "001" / "model"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "optimizer.name=sign_sdg",
            "optimizer.name: no installed package offers 'sign_sdg' .* did you mean \"sign_sgd\"",
        ),
        ("task=hubert", "task: must be 'classification', .*entry point of 'activelr.tasks', got 'hubert'"),
        ("model.name=wavenet", "model.name: no installed package offers 'wavenet' .* did you mean \"wave_net\""),
    ],
)
def test_a_name_that_no_package_offers_gets_one_line(lab, override, said):
    path = os.pathsep.join([str(lab), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "activelr_service.cli", "train", "job.yaml", "--set", override],
        cwd=lab,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(said, done.stderr), done.stderr
