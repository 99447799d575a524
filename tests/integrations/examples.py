"""The examples of docs/integrations.md, as they stand there, and what stops one of them in the middle."""

import os
import re
from contextlib import contextmanager

from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.conftest import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "integrations.md").read_text(), re.MULTILINE | re.DOTALL)
NAMES = ("trainer", "lightning", "timm", "loop")
EXAMPLES = dict(zip(NAMES, BLOCKS[1:], strict=False))


class StoppedError(Exception):
    """The machine went away."""


@contextmanager
def stopped_after(steps):
    """Steps of optimizers, in this process: the one after so many of them raises :class:`StoppedError`."""
    taken = 0

    def count(optimizer, args, kwargs):
        nonlocal taken
        taken += 1
        if taken > steps:
            raise StoppedError

    hook = register_optimizer_step_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


def run_example(name, folder, **changes):
    """Run an example in a folder; returns its names. ``changes``: texts of it, and what stands there instead."""
    code = EXAMPLES[name]
    for old, new in changes.get("replace", {}).items():
        assert old in code
        code = code.replace(old, new)
    names = {"__name__": "example"}
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(compile(BLOCKS[0], "data", "exec"), names)  # noqa: S102  it is our own document
        exec(compile(code, name, "exec"), names)  # noqa: S102
    finally:
        os.chdir(before)
    return names
