"""Data named by a URI: copied once, complete or not at all, and then read as any other."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from activelr_service.data import build_data, prepare_data
from activelr_service.data.remote import _local_name, fetch, is_remote
from activelr_service.errors import JobError
from activelr_service.service.check import check_before_start, prepare_job
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


@pytest.mark.parametrize("ending", ["", "/", "/../bucket", "/.."])
def test_a_folder_whose_files_lie_directly_in_it_is_copied(tmp_path, ending):
    root = tmp_path / "bucket"
    (root / "parts").mkdir(parents=True)
    (root / "a.txt").write_text("text " * 999)
    config = data_config(type="text", root=root.as_uri() + ("/parts" if ending == "/.." else "") + ending)
    fetched = fetch(config, tmp_path / "cache")
    assert (Path(fetched.root) / "a.txt").read_text() == "text " * 999
    assert (tmp_path / "cache") in Path(fetched.root).parents
    assert Path(fetched.root).name != ".."


def test_a_fetch_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    config = data_config(type="text", root=(tmp_path / "a.txt").as_uri())
    folder = Path(fetch(config, tmp_path / "cache").root).parent
    folder.rename(folder.with_name(f".{folder.name}"))
    assert Path(fetch(config, tmp_path / "cache").root).read_text() == "text"


def test_two_jobs_at_once_fetch_once(tmp_path):
    write_images(tmp_path / "bucket", count=50)
    config = data_config(type="imagefolder", root=(tmp_path / "bucket").as_uri())
    with ThreadPoolExecutor(4) as threads:
        roots = {one.root for one in threads.map(lambda _: fetch(config, tmp_path / "cache"), range(4))}
    (root,) = roots
    assert len(list(Path(root).rglob("*.png"))) == 100
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.name.startswith(".")]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAKEY:hunter2@bucket/x.npz?scheme=ftp",
        "nowhere://user:hunter2@host/x.npz?access_key=hunter2",
        "gs://bucket/x.npz?credential_token=hunter2&retry_limit_seconds=hunter2",
        "hdfs://user:hunter2@host:1/x.npz?password=hunter2",
    ],
)
def test_credentials_in_a_uri_are_refused_and_never_shown(uri):
    with pytest.raises(JobError, match=r"must not hold credentials; set .* in the environment") as caught:
        data_config(type="npz", path=uri)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_options_after_a_uri_are_no_part_of_the_local_name(tmp_path):
    assert _local_name("s3://bucket/a/t.csv?region=eu-west-1") == "t.csv"
    assert _local_name("s3://key:secret@bucket?region=x") == "bucket"
