"""Weights of classes: scikit-learn's numbers, a mean of 1, training only, and the same loss however samples are dealt."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from activelr_service.config.class_weights import weigh_classes
from activelr_service.data import inspect_data
from activelr_service.errors import JobError
from activelr_service.service.check import check_job
from activelr_service.tasks.losses import classification_loss
from activelr_service.training.build import build_task
from tests.conftest import small_job
from tests.training.test_loop import CPU, resolved

COUNTS = (5, 20, 0, 75)
LABELS = np.repeat(np.arange(4), COUNTS)


def test_balanced_weights_are_those_of_scikit_learn():
    wanted = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    weights = weigh_classes("balanced", COUNTS, ())
    assert np.array(weights)[[0, 1, 3]] == pytest.approx(wanted)
    assert weights[2] == 1.0


def test_given_weights_keep_their_ratio_and_have_a_mean_of_one_over_the_samples():
    weights = np.array(weigh_classes({"a": 3.0, "d": 0.5}, COUNTS, tuple("abcd")))
    assert weights[LABELS].mean() == pytest.approx(1)
    assert weights[[0, 3]] / weights[1] == pytest.approx([3.0, 0.5])


def test_the_training_loss_is_weighted_and_does_not_depend_on_which_samples_share_a_batch_and_the_validation_loss_is_not():
    torch.manual_seed(0)
    logits, targets = torch.randn(12, 4), torch.arange(12) % 4
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0])
    losses = functional.cross_entropy(logits, targets, reduction="none")
    whole, _ = classification_loss(nn.Identity(), (logits, targets), weights)
    assert whole.item() == pytest.approx((weights[targets] * losses).mean().item(), rel=1e-6)
    parts = [classification_loss(nn.Identity(), (logits[p::3], targets[p::3]), weights)[0] for p in range(3)]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-6)
    with torch.no_grad():
        assert torch.equal(classification_loss(nn.Identity(), (logits, targets), weights)[0], losses.mean())


def test_a_job_without_weights_has_the_loss_of_torch_to_the_last_bit_and_one_with_them_has_not(tmp_path):
    torch.manual_seed(0)
    batch = torch.randn(12, 10), torch.arange(12) % 10
    losses = []
    for changes in ({}, {"class_weights": "balanced"}, {"class_weights": {3: 100}}):
        job = resolved(small_job(tmp_path, **changes))
        losses.append(build_task(job, inspect_data(job.data), CPU).compute_loss(nn.Identity(), batch)[0])
    assert torch.equal(losses[0], functional.cross_entropy(*batch))
    assert abs(losses[1] - losses[0]) < 0.1
    assert abs(losses[2] - losses[0]) > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weights": {"12": 2.0}}, "class_weights: '12' is no class of these data"),
        ({"class_weights": "blanced"}, "class_weights: must be balanced, or a mapping of class names"),
        ({"class_weights": {"1": 0}}, "class_weights: the weight of the class '1' must be a number above 0, got 0"),
        (
            {
                "class_weights": "balanced",
                "data": {"type": "stdlib_chars"},
                "model": {"type": "causal_lm", "name": "gpt2"},
            },
            "class_weights: only a classification has them, and the task is language_modeling",
        ),
        ({"metric": "mae"}, "metric: of the task classification, the metrics that can choose the best epoch are loss"),
        ({"metric": "temperature"}, "got 'temperature'"),
        ({"metric": "macrof1"}, "got 'macrof1', did you mean \"macro_f1\"?"),
    ],
)
def test_a_metric_or_weights_that_the_data_do_not_have_are_named(tmp_path, changes, message):
    with pytest.raises(JobError) as caught:
        check_job(small_job(tmp_path, **changes))
    assert message in str(caught.value)
