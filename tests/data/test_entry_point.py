"""Users' own data: what goes wrong in them is told with its place, before anything starts."""

import pytest

from activelr_service.data import inspect_data
from activelr_service.errors import JobError
from tests.data.test_data import data_config

MODULE = """
import torch
from torch.utils.data import Dataset, TensorDataset


class Rows(Dataset):
    num_classes = 2

    def __init__(self, rows, row):
        self.rows, self.row = rows, row

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        return self.row() if callable(self.row) else self.row


def missing():
    raise KeyError("the row")


KINDS = {
    "raises": lambda: missing(),
    "no pair": lambda: 3,
    "none": lambda: (None, None),
    "empty": lambda: (Rows(4, (torch.rand(3), 1)), Rows(0, None)),
    "row": lambda: (Rows(4, missing), Rows(4, missing)),
    "text": lambda: (Rows(4, ("a", 1)), Rows(4, ("a", 1))),
    "fine": lambda: (Rows(4, (torch.rand(3), 1)), Rows(2, (torch.rand(3), 1))),
}


def make(kind):
    return KINDS[kind]()
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    (tmp_path / "own_rows.py").write_text(MODULE)
    (tmp_path / "own_rows-1.0.dist-info").mkdir()
    (tmp_path / "own_rows-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-rows\nVersion: 1.0\n"
    )
    (tmp_path / "own_rows-1.0.dist-info" / "entry_points.txt").write_text("[activelr.data]\nown = own_rows:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raises", r"data\.args: own raised KeyError: 'the row' \(.*own_rows\.py, line 20\)"),
        ("no pair", r"data\.name: own returned int; a pair \(train, val\) of datasets is wanted"),
        ("none", r"the training dataset of 'own' has no length: TypeError"),
        ("empty", r"the validation dataset of 'own' has no samples"),
        ("row", r"sample 0 of the training dataset of 'own' raised KeyError: 'the row' \(.*line 20\)"),
        ("text", r"the first training sample of 'own' is tuple of \(str, int\)"),
    ],
)
def test_errors_of_users_data_are_told_with_their_place(install, kind, message):
    with pytest.raises(JobError, match=message) as caught:
        inspect_data(data_config(type="python", name="own", args={"kind": kind}))
    assert "\n" not in str(caught.value)


def test_the_sizes_are_said(install):
    info = inspect_data(data_config(type="python", name="own", args={"kind": "fine"}))
    assert info.notes == ("from own: 4 training and 2 validation samples",)
