"""The metrics of a classifier that need all of its answers. They are scikit-learn's, whose checks cost as much as an epoch
of a small table."""

import numpy as np
import torch
from torch import Tensor

from activelr_service.tasks.answers import Answers, Measured
from activelr_service.tasks.calibration import calibration_error, find_temperature, in_parts, rate

CLASSES_AT_ONCE = 32
MOST_CONFUSED = 1000  # classes of a confusion matrix


def measure(answers: Answers, num_classes: int | None = None, temperature: float | None = None) -> Measured:
    """The metrics of :data:`~activelr_service.config.task.TASK_METRICS` that are not made of sums, and the table
    ``confusion`` if there are at most 1000 classes.

    Those that need the outputs are left out where there are too many, or where one is not finite. ``auroc`` is left out
    where no class has samples on both sides. ``temperature`` is that of the model; for None it is found, and reported.
    """
    assert answers.targets is not None
    assert answers.guesses is not None
    targets, guesses, outputs = answers.targets.cpu().numpy(), answers.guesses.cpu().numpy(), answers.outputs
    metrics = rate_guesses(targets, guesses)
    if outputs is not None and bool(outputs.isfinite().all()):
        area = macro_auroc(outputs, targets)
        metrics |= {} if area is None else {"auroc": area}
        metrics |= measure_calibration(outputs, answers.targets, targets == guesses, temperature)
    return Measured(metrics, count_confusion(targets, guesses, num_classes))


def count_confusion(targets: np.ndarray, guesses: np.ndarray, num_classes: int | None) -> dict[str, Tensor]:
    """The table ``confusion``, int32 (true classes, predicted classes)."""
    if num_classes is None or num_classes > MOST_CONFUSED:
        return {}
    counts = np.bincount(targets * num_classes + guesses, minlength=num_classes**2)
    return {"confusion": torch.from_numpy(counts.reshape(num_classes, num_classes)).int()}


def rate_guesses(targets: np.ndarray, guesses: np.ndarray) -> dict[str, float]:
    """``balanced_accuracy``, the mean recall of the classes that occur, and ``macro_f1``, the mean F1 score of the classes
    that occur or are guessed. Both are as in scikit-learn. The arrays are int64 (samples,)."""
    num_classes = int(max(targets.max(), guesses.max())) + 1
    occurring, guessed = (np.bincount(classes, minlength=num_classes) for classes in (targets, guesses))
    right = np.bincount(targets[targets == guesses], minlength=num_classes)
    recalls = right[occurring > 0] / occurring[occurring > 0]
    either = occurring + guessed
    scores = 2 * right[either > 0] / either[either > 0]
    return {"balanced_accuracy": float(recalls.mean()), "macro_f1": float(scores.mean())}


def macro_auroc(logits: Tensor, targets: np.ndarray) -> float | None:
    """The area under the ROC curve of each class against the rest, averaged over the classes with samples on both sides.

    With two classes it is that of the second one. None if there is no class to average over.
    """
    classes, areas = [1] if logits.shape[1] == 2 else np.unique(targets), []
    largest = logits.amax(dim=1).double()
    totals = torch.cat([(part - part.amax(dim=1, keepdim=True)).exp().sum(dim=1) for part in in_parts(logits)])
    for some in np.array_split(classes, -(-len(classes) // CLASSES_AT_ONCE)):
        columns = logits[:, torch.from_numpy(some)].T.double()
        probabilities = ((columns - largest).exp() / totals).cpu().numpy()  # as softmax: rows that tie stay equal
        for number, column in zip(some, probabilities, strict=True):
            is_class = targets == number
            if 0 < is_class.sum() < len(targets):
                areas.append(auroc(column, is_class))
    return float(np.mean(areas)) if areas else None


def auroc(scores: np.ndarray, is_class: np.ndarray) -> float:
    """The share of pairs of a sample of the class and another sample where the first has the higher score; a tie counts
    half (Hanley & McNeil 1982). ``scores`` are float64 (samples,), ``is_class`` bool (samples,) with both values."""
    ordered, ours = np.sort(scores), scores[is_class]
    below = np.searchsorted(ordered, ours, "left") + np.searchsorted(
        ordered, ours, "right"
    )  # twice, with half the ties
    num_ours, num_others = len(ours), len(scores) - len(ours)
    return float((below.sum() - num_ours**2) / (2 * num_ours * num_others))


def measure_calibration(
    logits: Tensor, targets: Tensor, is_right: np.ndarray, temperature: float | None
) -> dict[str, float]:
    """``ece``, and ``calibrated_loss`` and ``calibrated_ece`` after division of the logits by the temperature."""
    found = find_temperature(logits, targets) if temperature is None else temperature
    loss, confidences = rate(logits, targets, found)
    return {
        "ece": calibration_error(rate(logits, targets, 1.0)[1], is_right),
        **({"temperature": found} if temperature is None else {}),
        "calibrated_loss": loss,
        "calibrated_ece": calibration_error(confidences, is_right),
    }
