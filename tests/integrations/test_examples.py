"""The examples of the document run to their end, and go on where they were stopped."""

import pytest
import torch

from tests.integrations.examples import BLOCKS, EXAMPLES, StoppedError, run_example, stopped_after

STEPS = {"trainer": 24, "lightning": 24, "timm": 48, "loop": 24}
pytestmark = pytest.mark.slow


def optimizer_of(names):
    if "loop" in names:
        return names["loop"].optimizer
    trainer = names.get("trainer")
    if trainer is None:
        return names["optimizer"]
    return trainer.optimizers[0] if hasattr(trainer, "optimizers") else trainer.optimizer


def test_the_last_example_gives_the_learning_rate_of_a_step(capsys):
    names = {}
    exec(BLOCKS[0] + BLOCKS[-1], names)  # noqa: S102  it is our own document
    assert float(capsys.readouterr().out) > 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_that_was_stopped_goes_on_to_the_same_bits_in_as_many_steps_as_the_rule_was_told(name, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    one = run_example(name, whole)
    with pytest.raises(StoppedError), stopped_after(STEPS[name] * 5 // 8):
        run_example(name, parts)
    with stopped_after(STEPS[name] - 1):  # fewer steps than a run from the beginning
        two = run_example(name, parts)
    steps = [optimizer_of(names).param_groups[0]["steps_done"] for names in (one, two)]
    assert steps == [STEPS[name]] * 2
    for mine, other in zip(one["network"].parameters(), two["network"].parameters(), strict=True):
        assert torch.equal(mine, other)
