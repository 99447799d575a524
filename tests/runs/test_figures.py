"""Figures of runs whose metrics are missing in some epochs or in all, as they were not finite: drawn, without a warning."""

import warnings

import pytest

from activelr_service.runs.figures import draw_figures
from activelr_service.runs.record import Record
from activelr_service.service.explain import _explain_updates

GAINS = [0] * 50 + [7] + [0] * 49


def history_of(*epochs, gains=()):
    return [Record(epoch, epoch, 0, metrics, list(gains)) for epoch, metrics in enumerate(epochs, start=1)]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (history_of({}, {}), []),
        (history_of({"train/loss": 1.0, "val/accuracy": 0.5}, {}), []),
        (history_of({"train/loss": 0.0}), []),
        (history_of({"train/loss": -1.0, "val/loss": 1.0}), []),
        (history_of({}, {"optim/gain_mean": 1.0}, gains=GAINS), ["gain_histogram.png"]),
        ([*history_of({}, gains=GAINS), Record(2, 2, 0, {}, [])], ["gain_histogram.png"]),
        (history_of({}, {}, gains=[0] * 100), []),
        (history_of({"update/update_ratio/a": 0.0, "update/effective_lr/a": 0.0}), ["updates.png"]),
        (
            history_of({"update/update_ratio/a": 0.1}, {"update/update_ratio/b": 0.1, "update/effective_lr/b": 0.1}),
            ["updates.png"],
        ),
        (history_of({}, {"grad_l1/a": 0.0}), ["gradient_norms.png"]),
        (history_of({"grad_l1/a": 0.5}, {}), ["gradient_norms.png"]),
    ],
)
def test_what_is_missing_is_left_out_of_the_figures(tmp_path, history, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = draw_figures(tmp_path / "figures", history, "a run")
    assert [path.name for path in paths] == ["learning_curves.png", *expected]


def test_an_explanation_has_a_dash_for_an_epoch_without_a_step():
    moved = {"update/update_ratio/a": 0.1, "update/effective_lr/a": 0.01}
    (row,) = [line for line in _explain_updates(history_of({}, moved)) if line.startswith("  a ")]
    assert row.split() == ["a", "-", "10.000%", "-", "1.00e-02", "-", "-"]
