"""Presets: a job file carries a small version of itself, and mistakes in it keep their lines."""

import pytest

from activelr_service.config import load_job
from activelr_service.errors import JobError

JOB = """\
kind: train
name: x
model: {type: torchvision, name: resnet18}
data: {type: imagefolder, root: here}
epochs: 100
presets:
  smoke:
    epochs: 1
    model: {type: mlp, hidden: [8]}
    data: {image_size: 16}
    workers: {num_workers: 2}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_without_a_preset_the_job_is_as_written(path):
    job = load_job(path)
    assert (job.epochs, job.model.name, job.data.image_size) == (100, "resnet18", 224)


def test_a_preset_merges_mappings_and_replaces_those_with_a_type(path):
    job = load_job(path, ["preset=smoke"])
    assert (job.epochs, job.model.hidden, job.workers.num_workers) == (1, [8], 2)
    assert (job.data.root, job.data.image_size) == ("here", 16)


def test_an_override_has_the_last_word(path):
    job = load_job(path, ["epochs=3", "preset=smoke", "data.image_size=32"])
    assert (job.epochs, job.data.image_size) == (3, 32)


def test_a_file_can_name_its_preset(path):
    path.write_text(JOB + "preset: smoke\n")
    assert load_job(path).epochs == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 1\n", "epochs: 0\n", "job.yaml:8: epochs: must be greater than or equal to 1, got 0"),
        ("hidden:", "hiden:", 'job.yaml:9: model.hiden: unknown key; did you mean "hidden"?'),
        ("  smoke:", "  smok:", "preset: no preset 'smoke'; did you mean \"smok\"?"),
    ],
)
def test_a_mistake_in_a_preset_is_shown_where_it_stands(path, old, new, expected):
    path.write_text(JOB.replace(old, new))
    with pytest.raises(JobError) as caught:
        load_job(path, ["preset=smoke"])
    assert expected in str(caught.value)


def test_presets_that_are_no_mappings_are_refused(path):
    path.write_text(JOB[: JOB.index("presets")] + "presets: [smoke]\n")
    with pytest.raises(JobError, match=r"job.yaml:6: presets: must be a mapping"):
        load_job(path)
