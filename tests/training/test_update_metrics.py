"""What is recorded and drawn of the robust rule."""

import pytest

from activelr_service.runs.figures import draw_figures
from activelr_service.runs.record import update_groups, update_series
from activelr_service.training.update_metrics import _mean, group_names
from tests.conftest import small_job
from tests.training.test_loop import resolved, train


def test_tensors_are_grouped_by_module_as_deep_as_sixteen_groups_allow():
    blocks = [f"h.{block}.{part}.{kind}" for block in range(12) for part in ("a", "b") for kind in ("weight", "bias")]
    groups = group_names(["wte.weight", *blocks, "head.weight"])
    assert list(groups) == ["wte", *(f"h.{block}" for block in range(12)), "head"]
    assert groups["h.3"] == ["h.3.a.weight", "h.3.a.bias", "h.3.b.weight", "h.3.b.bias"]
    many = group_names([f"h.{block}.weight" for block in range(40)])
    assert list(many) == ["h"]


def test_every_epoch_records_the_steps_and_signs_of_every_group_and_a_picture_shows_them(tmp_path):
    _, history = train(resolved(small_job(tmp_path, epochs=4)), tmp_path)
    groups = update_groups(history)
    assert groups == ["1", "3"]  # the two linear layers
    for group in groups:
        steps = [value for _, value in update_series(history, "update_ratio", group)]
        assert len(steps) == 4
        cap = 0.1 * (400 / 88) ** 0.3  # of a run of 88 steps
        assert 0 < steps[-1] < max(steps) <= 1.001 * cap, "no step is above the cap, and the run ends in small ones"
        for field in ("sign_agreement", "clip_fraction"):
            assert all(0 <= value <= 1 for _, value in update_series(history, field, group))
    assert history[-1].metrics["optim/update_ratio"] == pytest.approx(steps[-1], rel=10)
    paths = draw_figures(tmp_path / "figures", history, "small")
    assert [path.name for path in paths] == ["learning_curves.png", "updates.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_under_the_paper_s_rule_there_is_no_pace_but_a_histogram_of_gains(tmp_path):
    _, history = train(resolved(small_job(tmp_path, optimizer={"rule": "paper"})), tmp_path)
    assert update_groups(history) == []
    assert "gain_histogram.png" in [path.name for path in draw_figures(tmp_path / "figures", history, "small")]


def test_means_leave_out_tensors_that_did_not_move_and_a_group_of_them_has_no_step():
    moved = {"effective_lr": 0.01, "update_ratio": 0.02, "cosine": 0.5, "sign_agreement": 0.6, "clip_fraction": 0.1}
    idle = {"effective_lr": 0.0, "update_ratio": 0.0, "cosine": 0.0, "sign_agreement": 0.0, "clip_fraction": 0.0}
    stats, weights = {"a": moved, "b": idle}, {"a": 1, "b": 1_000_000}
    assert _mean(stats, weights, ["a", "b"]) == pytest.approx(moved)
    alone = _mean(stats, weights, ["b"])
    assert (alone["effective_lr"], alone["update_ratio"]) == (0, 0)
    assert alone["sign_agreement"] != alone["sign_agreement"], "not known"
