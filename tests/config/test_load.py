"""Reading a job: what is accepted, and one clear line for everything else."""

import time

import pytest
import yaml

from activelr_service.config import diff_jobs, dump_job, load_job
from activelr_service.errors import JobError
from tests.conftest import ROOT

CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "studies")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path):
    assert load_job(path).kind == "train"


@pytest.mark.parametrize(
    ("append", "expected"),
    [
        ("epocs: 3\n", 'job.yaml:6: epocs: unknown key; did you mean "epochs"?'),
        (
            "optimizer:\n  type: active_adamw\n  wieght_decay: 0.1\n",
            "job.yaml:8: optimizer.wieght_decay: unknown key; did",
        ),
        (
            "optimizer: {type: activeadamw}\n",
            "job.yaml:6: optimizer.type: unknown type 'activeadamw'; did you mean \"active_adamw\"?",
        ),
        ("optimizer: {lr: -1}\n", "job.yaml:6: optimizer.lr: must be greater than 0, got -1"),
        ("optimizer: {lr: .nan}\n", "job.yaml:6: optimizer.lr: must be a finite number, got nan"),
        ("seed: 'x'\n", "job.yaml:6: seed: must be a valid integer, got 'x'"),
        ("compile: 1\n", "job.yaml:6: compile: must be a valid boolean, got 1"),
        ("name: again\n", "job.yaml:6: duplicate key 'name' (first on line 2)"),
        ("seed: &x 3\n", "job.yaml:6: anchors and aliases are not allowed"),
        (
            "seed: !!python/object/apply:os.system [ls]\n",
            "job.yaml:6: the tag 'tag:yaml.org,2002:python/object/apply:os",
        ),
        ("1: 2\n", "job.yaml:6: the key '1' is not a string"),
        ("---\na: 1\n", "expected a single document"),
        ("seed: [1,\n", "job.yaml:7: while parsing"),
        ("workers: 2\n", "job.yaml:6: workers: must be a mapping of keys to values, got 2"),
        (
            "task: detect\n",
            "job.yaml:6: task: must be 'classification', 'regression', 'language_modeling', 'detection' or an installed "
            "entry point of 'activelr.tasks', got 'detect'",
        ),
        ("tracking: {uri: 'http://me:s3cret@host'}\n", "job.yaml:6: tracking.uri: must not hold credentials"),
        ("seed: " + "[" * 5000, "nested deeper than 20 levels"),
        ("seed: " + "9" * 5000 + "\n", "job.yaml:6: seed: must be a valid integer"),
    ],
    ids=lambda text: text[:40],
)
def test_bad_input_gets_one_line_with_file_line_path_and_remedy(job_file, append, expected):
    with pytest.raises(JobError) as caught:
        load_job(job_file(append))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert expected in lines[0]
    assert "s3cret" not in lines[0]


@pytest.mark.parametrize(
    ("replace", "expected"),
    [
        (("20", "0"), "job.yaml:5: epochs: must be greater than or equal to 1, got 0"),
        (("20", "-3"), "got -3"),
        (("name: digits", "name: ../up"), "job.yaml:2: name: must be a plain name"),
        (("name: digits", "name: a/b"), "must be a plain name"),
        (("epochs: 20\n", ""), "epochs: is required"),
        (("resnet18", "resnet18, depth: 3"), "job.yaml:3: model.depth: unknown key"),
        (("digits}", "imagefolder, root: x, path: y}"), 'data.path: unknown key; did you mean "root"?'),
        (("digits}", "npz, path: x, root: y}"), 'data.root: unknown key; did you mean "path"?'),
        (
            ("type: torchvision, ", ""),
            "job.yaml:3: model.type: is required: one of torchvision, torchvision_detection, timm, "
            "transformers_image, causal_lm, mlp, python",
        ),
    ],
)
def test_a_value_out_of_range_names_its_line(job_file, replace, expected):
    with pytest.raises(JobError) as caught:
        load_job(job_file(replace=replace))
    assert expected in str(caught.value)


def test_all_problems_are_reported_at_once(job_file):
    with pytest.raises(JobError) as caught:
        load_job(job_file("epocs: 3\nseed: -1\n"))
    assert [problem.location for problem in caught.value.problems] == [("seed",), ("epocs",)]


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"just text", b"\xff\xfe\x00", b"a: \x00"])
def test_what_is_no_mapping_of_utf8_text_is_refused(tmp_path, content):
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(JobError, match=r"job\.yaml"):
        load_job(path)


def test_a_missing_file_and_one_over_a_megabyte_are_refused(tmp_path):
    with pytest.raises(JobError, match="cannot be read: No such file"):
        load_job(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_text("# " + "x" * 1_000_001)
    with pytest.raises(JobError, match="at most 1,000,000"):
        load_job(tmp_path / "big.yaml")


def test_an_alias_bomb_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (tmp_path / "job.yaml").write_text("\n".join(lines))
    start = time.monotonic()
    with pytest.raises(JobError, match="anchors"):
        load_job(tmp_path / "job.yaml")
    assert time.monotonic() - start < 30


def test_scalars_follow_yaml_1_2(job_file):
    job = load_job(job_file("optimizer: {lr: 1e-3}\n", ("name: digits", "name: no")))
    assert job.optimizer.lr == 1e-3
    assert job.name == "no"


def test_overrides_reach_into_the_job_and_name_themselves_in_errors(job_file):
    job = load_job(job_file(), ["epochs=5", "optimizer.lr=1e-2", "model.hidden=[8]", "model.type=mlp"][:2])
    assert (job.epochs, job.optimizer.lr) == (5, 0.01)
    for override, expected in [
        ("epochs=x", "--set epochs=x: epochs: must be a valid integer"),
        ("learning_rate=1", "learning_rate: unknown key; leave it out: a job needs none"),
        ("optimizer.rate=1", "--set optimizer.rate=1: optimizer.rate: unknown key"),
        ("epochs", "--set epochs: write it as a.b=value"),
        ("epochs.x=3", "job.yaml:5: epochs: is a single value"),
    ]:
        with pytest.raises(JobError) as caught:
            load_job(job_file(), [override])
        assert expected in str(caught.value)


def test_a_dumped_job_reads_back_equal_and_a_difference_is_named(job_file, tmp_path):
    job = load_job(job_file("optimizer: {type: active_sgd, lr: 0.5}\n"))
    (tmp_path / "again.yaml").write_text(dump_job(job))
    assert load_job(tmp_path / "again.yaml") == job
    other = load_job(tmp_path / "again.yaml", ["optimizer.lr=0.25", "epochs=3"])
    assert diff_jobs(job, other) == ["epochs: 20 -> 3", "optimizer.lr: 0.5 -> 0.25"]


def test_dumped_yaml_is_plain(job_file):
    assert yaml.safe_load(dump_job(load_job(job_file())))["data"] == {"type": "digits", "image_size": 32}
