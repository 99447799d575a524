"""Secrets in texts: what is hidden, and what is not mistaken for one."""

import json

import pytest

from activelr_service.config import load_job
from activelr_service.errors import JobError
from activelr_service.redact import holds_credentials, redact, redact_values, without_credentials
from tests.conftest import ROOT

CANARY = "c4nary-S3cret"


@pytest.mark.parametrize(
    "text",
    [
        f"MLflow at http://me:{CANARY}@host:5000/x: refused",
        f"s3://AKEY:{CANARY}/with/slashes@bucket/x cannot be read",
        f"git clone https://{CANARY}@host/x",
        f"https://host/x?X-Amz-Signature={CANARY}&a=1",
        f"https://host/x?a=1&access_key={CANARY}",
        f"postgresql://host/db?user=me&password={CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"{{'Authorization': 'Basic {CANARY}'}}",
        f"got {{'aws_secret_access_key': '{CANARY} two', 'a': 1}}",
        f'{{"password": "{CANARY}"}}',
        f"--set tracking.password={CANARY}",
        f"aws_secret_access_key = {CANARY}",
        f"PASSWORD='{CANARY}'",
        f"MLflow at me:{CANARY}@host:5000",
        f"https:/me:{CANARY}@host/job.yaml: no such file",
        f"--set data={{args: {{api_key: {CANARY}}}}}",
    ],
)
def test_credentials_are_hidden_by_how_they_are_written(text):
    assert CANARY not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "RAY_AUTH_TOKEN",
        "PGPASSWORD",
        "X_API_KEY",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "GITHUB_PAT",
        "DB_PASS",
    ],
)
def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands(monkeypatch, name):
    value = "/" + CANARY + '/"+'
    monkeypatch.setenv(name, value)
    for written in (value, json.dumps(value), "%2Fc4nary-S3cret%2F%22%2B"):
        assert CANARY not in redact(f"a text with {written} in it")


def test_a_secret_that_is_a_word_hides_no_parts_of_other_words(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert redact("secretary, secrets; secret") == "secretary, secrets; ***"


@pytest.mark.parametrize("option", ["token=", "model.config.hf_token=", "tracking.password=", "data.args.token="])
def test_the_value_of_a_secret_option_is_in_no_message(tmp_path, option):
    path = tmp_path / "job.yaml"
    path.write_text("kind: train\nname: a\nmodel: {type: mlp}\ndata: {type: digits}\nepochs: 1\n")
    with pytest.raises(JobError) as caught:
        load_job(path, [option + CANARY])
    assert option + "***" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_the_password_of_a_uri_in_a_variable_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:c4nary%40S3cret@host")
    assert redact("c4nary@S3cret and c4nary%40S3cret") == "*** and ***"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000  (run a@b)",
        "http://host:8080/mail@x",
        "model.config.eos_token_id=3, data.tokenizer=PATH",
        "set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN",
        "basic training of a token",
        "sqlite:////a b/mlflow.db",
        "models:/digits@champion",
        "authorization: a column of texts",
        "s3://bucket/folder?region=eu",
    ],
)
def test_what_is_no_secret_stays(monkeypatch, text):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "basic training")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "a token")
    assert redact(text) == text


def test_a_uri_without_its_credentials_is_the_same_place():
    assert without_credentials("http://me:x@host:5000/p") == "http://host:5000/p"
    assert without_credentials("postgresql://host/db?password=x&sslmode=on") == "postgresql://host/db?sslmode=on"
    assert without_credentials("sqlite:////a b/x.db") == "sqlite:////a b/x.db"
    assert without_credentials(f"me:{CANARY}@host:5000") == "host:5000"
    assert without_credentials("runs@home/mlruns") == "runs@home/mlruns"
    assert holds_credentials("s3://K:S/E@b/x")
    assert not holds_credentials("s3://b/x?region=eu")


def test_what_stands_under_a_secret_key_is_hidden_as_a_whole():
    value = {"a": [{"api_key": {"x": CANARY}}], "b": f"http://u:{CANARY}@h", "n": 3}
    assert CANARY not in str(redact_values(value))
    assert redact_values(value)["n"] == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"data.root=s3://KEY:{CANARY}@bucket/x", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (f"tracking.uri=http://me:{CANARY}@host", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (f"tracking.uri=postgresql://host/db?password={CANARY}", "must not hold credentials"),
        (f"tracking.uri=me:{CANARY}@host:5000", "must begin with a scheme, such as http://HOST:5000"),
        (f"tracking.password={CANARY}", "must not hold a secret"),
        (f"data={{type: python, name: x, args: {{api_key: {CANARY}}}}}", "must not hold a secret"),
        (f"workers={{secret: {CANARY}}}", "must not hold a secret"),
    ],
)
def test_a_job_that_holds_a_secret_is_refused_without_repeating_it(override, expected):
    with pytest.raises(JobError) as caught:
        load_job(ROOT / "configs" / "quickstart.yaml", [override])
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)
