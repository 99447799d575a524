"""The tables of the authors' own published results come out as they do by hand."""

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from activelr_service.reports import load_table, summary_lines
from activelr_service.reports.metrics import summarize, value_means
from activelr_service.reports.statistics import paired_tests
from activelr_service.reports.trials import trials_of

REFERENCE = Path(__file__).parent / "reference"
PUBLISHED = {
    "AdamW": ([50.47, 70.85, 80.08, 85.36, 85.32], 74.42, 34.89),
    "ActiveAdamW": ([68.51, 76.98, 84.01, 85.82, 85.39], 80.14, 17.31),
}
FILES = [
    ("cifar10_resnet18", "best_test_accuracy", True),
    ("imagenet_resnet18", "best_top1", True),
    ("wikitext103_transformer", "best_val_ppl", False),
]


def means_by_hand(name, metric):
    """{optimizer: [mean over seeds at each learning rate]}."""
    scores = defaultdict(lambda: defaultdict(list))
    with (REFERENCE / f"{name}.csv").open() as file:
        for row in csv.DictReader(file):
            scores[row["optimizer"]][float(row["initial_lr"])].append(float(row[metric]))
    return {label: [statistics.mean(found[rate]) for rate in sorted(found)] for label, found in scores.items()}


@pytest.mark.parametrize("label", PUBLISHED)
def test_cifar_s_means_and_ranges_are_the_published_ones(label):
    trials = trials_of(load_table(REFERENCE / "cifar10_resnet18.csv"))
    means = value_means(trials, "initial_lr").query("optimizer == @label")
    values, mean, spread = PUBLISHED[label]
    assert means["value"].tolist() == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    assert means["score"].tolist() == pytest.approx(values, abs=0.01)
    (row,) = summarize(trials, "initial_lr").query("optimizer == @label").to_dict("records")
    assert row["mean"] == pytest.approx(mean, abs=0.01)
    assert row["range"] == pytest.approx(spread, abs=0.01)


@pytest.mark.parametrize(("name", "metric", "higher"), FILES)
def test_every_optimizer_s_numbers_are_those_worked_out_by_hand(name, metric, higher):
    table = load_table(REFERENCE / f"{name}.csv")
    assert set(table["metric"]) == {metric}
    assert set(table["higher_is_better"]) == {higher}
    by_hand = means_by_hand(name, metric)
    best_of = max if higher else min
    best_of_all = best_of(value for values in by_hand.values() for value in values)
    rows = summarize(trials_of(table), "initial_lr").set_index("optimizer")
    assert set(rows.index) == set(by_hand)
    for label, values in by_hand.items():
        row, mean, best = rows.loc[label], statistics.mean(values), best_of(values)
        assert row["mean"] == pytest.approx(mean)
        assert row["deviation"] == pytest.approx(statistics.pstdev(values))
        assert row["best"] == pytest.approx(best)
        assert row["worst"] == pytest.approx(min(values) if higher else max(values))
        assert row["range"] == pytest.approx(max(values) - min(values))
        assert row["sensitivity"] == pytest.approx(abs(best - mean))  # nothing was clipped: l0 is not in the file
        assert row["regret"] == pytest.approx(abs(best_of_all - mean))


def test_the_pairs_are_of_the_same_learning_rate_and_seed():
    rows = paired_tests(trials_of(load_table(REFERENCE / "cifar10_resnet18.csv"))).set_index("optimizer")
    assert rows["baseline"].to_dict() == {"ActiveBelief": "AdaBelief", "ActiveAdamW": "AdamW", "ActiveRAdam": "RAdam"}
    assert (rows["pairs"] == 35).all()
    by_hand = means_by_hand("cifar10_resnet18", "best_test_accuracy")
    difference = statistics.mean(by_hand["ActiveAdamW"]) - statistics.mean(by_hand["AdamW"])
    assert rows.loc["ActiveAdamW", "difference"] == pytest.approx(difference)


def test_optimizers_that_were_not_run_at_every_learning_rate_are_named():
    lines = "\n".join(summary_lines(load_table(REFERENCE / "imagenet_resnet18.csv")))
    assert "note: RAdam was not run at 0.01" in lines
    assert "note: AdamW" not in lines
