"""A canary in every secret variable and in URIs, through every command: it is found nowhere."""

import os
import re

import pytest

from tests.conftest import activelr, free_port

pytestmark = [pytest.mark.xdist_group("secrets"), pytest.mark.ray]

CANARY = "c4nary"
SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "somebody",
    "MLFLOW_TRACKING_PASSWORD": f"{CANARY}-password",
    "AWS_ACCESS_KEY_ID": f"{CANARY}-key-id",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}/secret+key",
    "AWS_SESSION_TOKEN": f"{CANARY}-session",
    "HF_TOKEN": f"{CANARY}-hf-token",
    "RAY_AUTH_TOKEN": f"{CANARY}-ray-token",
    "WANDB_API_KEY": f"{CANARY}-api-key",
    "HTTPS_PROXY_USER": f"http://me:{CANARY}-proxy@127.0.0.1:9",
}
JOB = """\
kind: train
name: small
model: {type: mlp, hidden: [8]}
data: {type: digits, image_size: 8}
epochs: 1
global_batch_size: 64
workers: {num_workers: 1}
output_dir: out
"""
STUDY = """\
kind: study
name: look
workloads: {a: {model: {type: mlp, hidden: [4]}, data: {type: digits, image_size: 8}, epochs: 1}}
optimizers: [active_sgd]
sweeps: [{global_batch_size: [64]}]
seeds: [0]
output_dir: out
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a job was trained with canaries all around, and what that said."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "job.yaml").write_text(JOB)
    (folder / "study.yaml").write_text(STUDY)
    result = activelr("train", "job.yaml", cwd=folder, env={**os.environ, **SECRETS})
    assert result.returncode == 0, result.stderr
    return folder, result


def assert_no_canary(folder, result):
    assert CANARY not in result.stdout + result.stderr
    found = [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []


def test_a_training_leaves_no_secret_in_its_files_its_store_or_its_words(trained):
    assert_no_canary(*trained)
    assert {path.name for path in (trained[0] / "out").iterdir()} >= {"mlflow.db", "mlartifacts", "small"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("validate job.yaml --data", 0),
        ("list --output-dir out", 0),
        ("status small --output-dir out", 0),
        ("logs small --output-dir out", 0),
        ("explain small --output-dir out", 0),
        ("evaluate small --output-dir out", 0),
        ("resume small --output-dir out", 0),
        ("stop small --output-dir out", 2),
        ("study study.yaml --dry-run", 0),
        ("report nothing --output-dir out", 6),
        ("submit job.yaml --address http://127.0.0.1:9", 2),
        (f"submit job.yaml --address http://me:{CANARY}@127.0.0.1:9", 2),
        (f"validate job.yaml --set data.root=s3://KEY:{CANARY}@bucket/x", 2),
        (f"validate job.yaml --set tracking.password={CANARY}", 2),
    ],
)
def test_no_command_repeats_a_secret(trained, command, code):
    result = activelr(*command.split(), cwd=trained[0], env={**os.environ, **SECRETS})
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert_no_canary(trained[0], result)


def test_a_dead_server_whose_uri_has_a_password_is_named_without_it(trained, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    server = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, **SECRETS, "MLFLOW_TRACKING_URI": f"http://somebody:{CANARY}-in-uri@{server}"}
    result = activelr("train", "job.yaml", cwd=tmp_path, env=environment)
    assert result.returncode == 6
    assert re.search(rf"MLflow at http://{server}: ", result.stderr)
    assert_no_canary(tmp_path, result)
