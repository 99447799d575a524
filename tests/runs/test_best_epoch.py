"""Which epoch of a run is the best."""

import pytest

from activelr_service.runs.record import Record, best_epoch


def history(*epochs):
    return [Record(number, 10 * number, 0, metrics, []) for number, metrics in enumerate(epochs, 1)]


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([{"val/accuracy": 0.5, "val/loss": 0.1}, {"val/accuracy": 0.9, "val/loss": 0.7}], 2),
        ([{"val/accuracy": 1.0, "val/loss": 0.7}, {"val/accuracy": 1.0, "val/loss": 0.2}], 2),
        ([{"val/accuracy": 1.0, "val/loss": 0.2}, {"val/accuracy": 1.0, "val/loss": 0.2}], 1),
        ([{"val/accuracy": 1.0}, {"val/accuracy": 1.0, "val/loss": 9.0}, {"val/accuracy": 1.0}], 2),
        ([{"val/accuracy": 0.4, "val/loss": 0.2}, {}], 1),
        ([{}, {}], 2),
    ],
)
def test_of_equal_scores_the_lowest_loss_is_the_best_and_of_these_the_first(epochs, best):
    assert best_epoch(history(*epochs), "accuracy", higher_is_better=True) == best


def test_a_score_that_is_to_be_low_is_the_best_where_it_is_lowest():
    epochs = history({"val/perplexity": 3.0}, {"val/perplexity": 2.0}, {"val/perplexity": 2.5})
    assert best_epoch(epochs, "perplexity", higher_is_better=False) == 2
