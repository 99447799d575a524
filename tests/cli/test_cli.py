"""The command line as a user meets it."""

import json

import pytest

from tests.conftest import ROOT, activelr

pytestmark = pytest.mark.slow

COMMANDS = [
    "init",
    "validate",
    "schema",
    "train",
    "resume",
    "evaluate",
    "list",
    "status",
    "logs",
    "stop",
    "submit",
    "ui",
    "study",
    "report",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = activelr(command, "--help")
    assert result.returncode == 0
    assert f"Example: activelr {command}" in result.stdout


def test_validate_says_what_the_job_is_and_with_data_what_was_read():
    told = activelr("validate", ROOT / "configs" / "quickstart.yaml", "--data")
    assert "with their training and validation samples: 0 150/28" in told.stdout
    result = activelr("validate", ROOT / "configs" / "quickstart.yaml")
    assert "is valid: digits, classification, 20 epochs; 1,437 training and 360 validation samples" in result.stdout


@pytest.mark.parametrize("command", ["validate", "train"])
@pytest.mark.parametrize(
    ("append", "expected"),
    [
        ("epocs: 3\n", 'job.yaml:6: epocs: unknown key; did you mean "epochs"?'),
        ("seed: [\n", "job.yaml:7: "),
    ],
)
def test_a_bad_job_is_one_line_on_stderr_and_exit_code_2(job_file, tmp_path, command, append, expected):
    result = activelr(command, job_file(append), cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "data={type: npz, path: none.npz}",
            "--set data={type: npz, path: none.npz}: data.path: no such file: {cwd}/none.npz",
        ),
        ("data={type: imagefolder, root: none}", "data.root: no such folder: {cwd}/none"),
        ("model.num_classes=3", "--set model.num_classes=3: model.num_classes: the data have 10 classes, got 3"),
        ("model.name=resnet19", "model.name: torchvision has no classifier 'resnet19'; did you mean \"resnet1"),
        ("workers.num_workers=2000", "workers.num_workers: 1437 training samples cannot be shared by 2000 workers"),
    ],
)
def test_data_and_model_that_do_not_fit_are_found_before_anything_starts(job_file, tmp_path, override, expected):
    result = activelr("validate", job_file(), "--set", override, cwd=tmp_path)
    assert result.returncode == 2
    assert expected.replace("{cwd}", str(tmp_path)) in result.stderr
    assert "Traceback" not in result.stderr


def test_init_writes_a_job_that_is_valid_and_overwrites_nothing(tmp_path):
    assert activelr("init", "my.yaml", cwd=tmp_path).returncode == 0
    assert activelr("validate", "my.yaml", cwd=tmp_path).returncode == 0
    again = activelr("init", "my.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert "my.yaml exists" in again.stderr


def test_schema_is_json_schema_with_every_key_described():
    schema = json.loads(activelr("schema").stdout)
    assert set(schema["required"]) == {"kind", "name", "model", "data"}
    assert schema["oneOf"] == [{"required": ["epochs"]}, {"required": ["budget"]}]
    assert set(schema["$defs"]["BudgetConfig"]["properties"]) == {"time", "steps"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["global_batch_size"]["description"]


def test_a_cluster_that_is_not_there_is_one_line(job_file):
    for command in (("list",), ("status", "x"), ("submit", str(job_file()))):
        result = activelr(*command, "--address", "http://127.0.0.1:9")
        assert result.returncode == 2
        assert (
            result.stderr.strip().splitlines()[-1].startswith("activelr: no Ray cluster answers at http://127.0.0.1:9")
        )


def test_another_machine_without_https_is_refused(job_file):
    result = activelr("submit", job_file(), "--address", "http://198.51.100.7:8265")
    assert result.returncode == 2
    assert "--insecure allows it" in result.stderr


def test_report_says_the_published_numbers_of_published_results(tmp_path):
    results = ROOT / "tests" / "reports" / "reference" / "cifar10_resnet18.csv"
    result = activelr("report", results, "--output", "report", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("ActiveAdamW")]
    assert line.split()[1:8] == ["68.51", "76.98", "84.01", "85.82", "85.39", "80.14", "85.82"]
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("none.csv", "none.csv"),
        ("none", "no results 'none': no such file, and neither a study nor an MLflow store"),
    ],
)
def test_results_that_are_not_there_are_named(tmp_path, results, expected):
    result = activelr("report", results, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_a_document_of_the_other_kind_is_told_its_command(tmp_path):
    result = activelr("train", ROOT / "configs" / "studies" / "invariance.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "kind: is 'study': this file is for `activelr study`" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
