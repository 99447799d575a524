"""What a run says of its choices and of its steps."""

import pytest

from activelr_service.service.explain import describe_lr, explain_run
from activelr_service.service.launch import train
from tests.conftest import small_job

ONE = {"num_workers": 1}


@pytest.mark.timeout(300)
def test_a_run_explains_what_it_chose_and_how_its_steps_moved(tmp_path):
    text = "\n".join(explain_run(train(small_job(tmp_path, workers=ONE, epochs=5))))
    assert "run small/001: active_adamw, robust rule; finished, epochs trained: 5" in text
    assert "task = classification  (inferred from the data)" in text
    assert "global_batch_size = " in text
    for column in ("step 1", "step 3", "step 5", "lr 5", "signs agree", "capped"):
        assert column in text
    assert len([line for line in text.splitlines() if line.startswith(("  1 ", "  3 "))]) == 2


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [
        ({"type": "adamw"}, "keeps the learning rate it was given"),
        ({"type": "adamw", "schedule": "cosine"}, "follows the schedule cosine"),
        ({"type": "prodigy"}, "finds the lengths of its steps by itself"),
    ],
)
def test_what_an_optimizer_without_gains_does_about_its_learning_rate(tmp_path, optimizer, line):
    assert line in describe_lr(small_job(tmp_path, optimizer=optimizer).optimizer)


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [({"rule": "paper"}, "gains on the learning rate"), ({"type": "sgd"}, "keeps the learning rate it was given")],
)
def test_other_optimizers_explain_what_they_have(tmp_path, optimizer, line):
    run = train(small_job(tmp_path, workers=ONE, epochs=2, optimizer=optimizer))
    assert line in "\n".join(explain_run(run))
