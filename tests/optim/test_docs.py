"""The code of docs/optimizers.md runs as it stands, from top to bottom, without a warning."""

import re
import warnings

import torch

from tests.conftest import ROOT


def test_the_code_of_the_page_runs_from_top_to_bottom():
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "optimizers.md").read_text(), re.DOTALL)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(compile(block, "docs/optimizers.md", "exec"), names)  # noqa: S102 - it is our own page
    assert len(blocks) == 8
    assert names["stats"]["0.weight"]["update_ratio"] > 0
