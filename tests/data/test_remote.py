"""Data named by a URI: copied once, complete or not at all, and then read as any other."""

import numpy as np
import pytest

from activelr_service.config import JobError
from activelr_service.data import build_data, prepare_data
from activelr_service.data.remote import is_remote
from activelr_service.driver.check import check_before_start, prepare_job
from tests.conftest import small_job
from tests.data.generate_images import write_images
from tests.data.test_data import data_config


def test_a_folder_is_copied_once_and_read_from_the_copy(tmp_path):
    write_images(tmp_path / "bucket" / "animals")
    config = data_config(type="imagefolder", root=(tmp_path / "bucket" / "animals").as_uri(), image_size=16)
    assert is_remote(config)
    fetched = prepare_data(config, tmp_path / "cache")
    assert not is_remote(fetched)
    assert len(build_data(fetched)[0]) == 11
    (tmp_path / "bucket" / "animals").rename(tmp_path / "gone")
    assert prepare_data(config, tmp_path / "cache") == fetched


def test_a_file_is_fetched_when_the_job_starts_and_not_before(tmp_path):
    np.savez(tmp_path / "xy.npz", x=np.ones((8, 2), np.float32), y=np.arange(8) % 2)
    job = small_job(tmp_path, model={"type": "mlp"}, data={"type": "npz", "path": (tmp_path / "xy.npz").as_uri()})
    assert check_before_start(job) is None
    prepared, info = prepare_job(job)
    assert info.num_train == 6
    assert prepared.data.path.startswith(str(tmp_path))


def test_a_uri_with_nothing_at_it_is_named_and_leaves_no_copy(tmp_path):
    config = data_config(type="npz", path=(tmp_path / "no.npz").as_uri())
    with pytest.raises(JobError, match=r"data\.path: there is nothing at file:.*no\.npz"):
        prepare_data(config, tmp_path / "cache")
    with pytest.raises(JobError, match=r"data\.path: nowhere://x cannot be read"):
        prepare_data(data_config(type="npz", path="nowhere://x"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("remote-*"))
