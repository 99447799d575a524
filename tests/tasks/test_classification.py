"""The metrics of a classifier are those of scikit-learn and of the paper, for one rank and for two of unequal shares."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import metrics as sklearn
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from activelr_service.tasks import fit_task
from activelr_service.tasks.calibration import calibration_error, find_temperature
from activelr_service.tasks.classification import measure
from activelr_service.training.answers import AnswerCollector
from activelr_service.training.evaluate import evaluate
from tests.ranks import run_ranks

CPU = torch.device("cpu")
CLOSE = {"rel": 1e-6, "abs": 1e-9}


def draw(num_samples, num_classes, missing=(), digits=None, seed=0):
    """Logits (samples, classes), with many ties if rounded to ``digits``, and targets without the ``missing`` classes."""
    rng = np.random.default_rng(seed)
    present = [number for number in range(num_classes) if number not in missing]
    targets = rng.choice(present, num_samples)
    logits = 2 * rng.normal(size=(num_samples, num_classes)) + 2 * np.eye(num_classes)[targets]
    logits = logits if digits is None else logits.round(digits)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets)


def evaluate_logits(logits, targets, batch_size=7, **options):
    """The metrics of a model that answers with the given logits."""
    batches = DataLoader(TensorDataset(logits, targets), batch_size)
    return evaluate(fit_task("classification", **options), nn.Identity(), batches, CPU, "float32")


def expected(logits, targets):
    """The same from scikit-learn, scipy and torchmetrics."""
    wide, targets = logits.double().numpy(), targets.numpy()
    probabilities, guesses = softmax(wide, axis=1), wide.argmax(axis=1)
    if wide.shape[1] == 2:
        areas = [sklearn.roc_auc_score(targets, probabilities[:, 1])]
    else:
        areas = [sklearn.roc_auc_score(targets == one, probabilities[:, one]) for one in np.unique(targets)]

    def log_loss(log_temperature):
        return -log_softmax(wide / np.exp(log_temperature), axis=1)[np.arange(len(targets)), targets].mean()

    best = minimize_scalar(log_loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    return {
        "loss": log_loss(0.0),
        "accuracy": sklearn.accuracy_score(targets, guesses),
        "balanced_accuracy": np.mean([(guesses[targets == one] == one).mean() for one in np.unique(targets)]),
        "macro_f1": sklearn.f1_score(targets, guesses, average="macro", zero_division=0),
        "auroc": np.mean(areas),
        "calibrated_loss": best.fun,
    }, np.exp(best.x)


@pytest.mark.parametrize(
    ("num_samples", "num_classes", "options"),
    [
        (200, 2, {}),
        (200, 2, {"digits": 0}),
        (301, 5, {}),
        (301, 5, {"digits": 1, "missing": (0, 3)}),
        (40, 30, {}),
        (500, 120, {"digits": 2}),
    ],
)
def test_the_metrics_are_those_of_scikit_learn(num_samples, num_classes, options):
    logits, targets = draw(num_samples, num_classes, **options)
    logits += torch.arange(num_classes) / 1024  # no two largest logits are equal: which one counts is not defined
    measured, (wanted, temperature) = evaluate_logits(logits, targets), expected(logits, targets)
    for name, value in wanted.items():
        assert measured[name] == pytest.approx(value, **CLOSE), name
    assert measured["temperature"] == pytest.approx(temperature, rel=1e-4)
    probabilities = torch.softmax(logits.double(), dim=1)
    error = multiclass_calibration_error(probabilities, targets, num_classes, n_bins=15, norm="l1")
    assert measured["ece"] == pytest.approx(error.item(), abs=1e-6)  # torchmetrics adds in float32
    calibrated = torch.softmax(logits.double() / measured["temperature"], dim=1)
    error = multiclass_calibration_error(calibrated, targets, num_classes, n_bins=15, norm="l1")
    assert measured["calibrated_ece"] == pytest.approx(error.item(), abs=1e-6)


def test_balanced_accuracy_is_that_of_scikit_learn():
    logits, targets = draw(150, 4)
    expected_value = sklearn.balanced_accuracy_score(targets, logits.argmax(dim=1))
    assert evaluate_logits(logits, targets)["balanced_accuracy"] == pytest.approx(expected_value, **CLOSE)


def test_ties_of_all_samples_give_an_area_of_a_half():
    logits, targets = torch.zeros(10, 2), torch.arange(10) % 2
    assert evaluate_logits(logits, targets)["auroc"] == 0.5


def test_an_area_that_is_not_defined_is_left_out_and_the_rest_is_there():
    logits, _ = draw(20, 3)
    measured = evaluate_logits(logits, torch.ones(20, dtype=torch.int64))
    assert "auroc" not in measured
    assert {"balanced_accuracy", "macro_f1", "ece", "temperature"} <= set(measured)


def test_outputs_that_are_not_finite_are_rated_by_their_guesses_only():
    logits, targets = draw(20, 3)
    logits[3, 1] = torch.nan
    measured = evaluate_logits(logits, targets)
    assert {"accuracy", "balanced_accuracy", "macro_f1"} <= set(measured)
    assert not {"auroc", "ece", "temperature", "calibrated_loss"} & set(measured)


def test_outputs_that_are_too_many_are_not_kept_and_the_guesses_are():
    logits, targets = draw(20, 3)
    collectors = [AnswerCollector(most_outputs) for most_outputs in (60, 59)]
    for collector in collectors:
        for start in range(0, 20, 6):
            collector.add(logits[start : start + 6], targets[start : start + 6])
    kept, dropped = (collector.gather(CPU) for collector in collectors)
    assert torch.equal(kept.outputs, logits)
    assert dropped.outputs is None
    whole, rest = measure(kept, 3), measure(dropped, 3)
    assert set(rest.metrics) == {"balanced_accuracy", "macro_f1"}
    assert rest.metrics.items() <= whole.metrics.items()
    assert torch.equal(rest.tables["confusion"], whole.tables["confusion"])


def test_the_calibration_error_is_that_of_the_code_of_the_paper():
    rng = np.random.default_rng(0)
    confidences = np.append(rng.random(300), [0.0, 1.0, 1 / 15, 0.2, 0.4])
    is_right = rng.random(len(confidences)) < confidences
    error, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in itertools.pairwise(edges):
        within = (confidences > low) & (confidences <= high)
        if within.any():
            error += abs(confidences[within].mean() - is_right[within].mean()) * within.mean()
    assert calibration_error(confidences[confidences > 0], is_right[confidences > 0]) == pytest.approx(
        error * len(confidences) / (len(confidences) - 1), **CLOSE
    )


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0])
def test_the_temperature_undoes_a_scale_of_the_logits(scale):
    logits, targets = draw(400, 4)
    assert find_temperature(logits * scale, targets) == pytest.approx(
        scale * find_temperature(logits, targets), rel=1e-5
    )


def test_the_temperature_stays_one_if_every_sample_is_right_and_is_bounded_if_no_guess_is_better():
    targets = torch.arange(12) % 3
    assert find_temperature(5 * nn.functional.one_hot(targets).float(), targets) == 1.0
    assert find_temperature(5 * nn.functional.one_hot((targets + 1) % 3).float(), targets) == pytest.approx(np.exp(9))


def test_a_trained_model_is_measured_with_its_own_temperature():
    logits, targets = draw(100, 3)
    measured = evaluate_logits(logits, targets, temperature=2.0)
    assert "temperature" not in measured
    assert measured["calibrated_loss"] == pytest.approx(evaluate_logits(logits / 2, targets)["loss"], rel=1e-6)


SHARES = {  # of 31 samples for each of two ranks
    "one class each": lambda targets: [torch.where(targets == number)[0].tolist() for number in (0, 1)],
    "one rank without samples": lambda targets: [[], range(31)],
    "uneven": lambda targets: [range(0, 31, 3), [row for row in range(31) if row % 3]],
}


def measure_shares(rank, cases):
    """For each case the metrics, and the tables of counts as lists."""
    found = []
    for logits, targets, shares in cases:
        tables, task = {}, fit_task("classification", num_classes=logits.shape[1])
        mine = DataLoader(Subset(TensorDataset(logits, targets), shares[rank]), 4)
        metrics = evaluate(task, nn.Identity(), mine, CPU, "float32", tables)
        found.append((metrics, {name: table.tolist() for name, table in tables.items()}))
    return found


@pytest.mark.slow
def test_two_ranks_measure_as_one_does(tmp_path):
    drawn = [draw(31, 2 if kind == "one class each" else 5, digits=1) for kind in SHARES]
    cases = [(logits, targets, share(targets)) for (logits, targets), share in zip(drawn, SHARES.values(), strict=True)]
    alone = measure_shares(0, [(logits, targets, [range(31)]) for logits, targets in drawn])
    first, second = run_ranks(measure_shares, 2, tmp_path, cases)
    for (logits, targets), wanted, one, two in zip(drawn, alone, first, second, strict=True):
        assert one[0] == two[0] == pytest.approx(wanted[0], rel=1e-7)
        assert (one[1], two[1]) == (wanted[1], {})
        assert one[1]["confusion"] == sklearn.confusion_matrix(targets, logits.argmax(dim=1)).tolist()
