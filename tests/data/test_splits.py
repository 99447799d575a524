"""Which rows validate: every class has its share, and the draw hardly depends on the number of rows."""

import numpy as np
import pytest

from activelr_service.data.info import describe_classes
from activelr_service.data.splits import train_val_split


@pytest.mark.parametrize(
    ("counts", "fraction", "held"),
    [
        ([50, 50], 0.2, [10, 10]),
        ([80, 15, 5], 0.2, [16, 3, 1]),
        ([94, 2, 2, 1, 1], 0.2, [18, 1, 1, 0, 0]),
        ([2, 2], 0.9, [1, 1]),
        ([3, 1], 0.1, [1, 0]),
        ([2] * 10, 0.1, None),
        ([1, 1, 1], 0.5, [1, 0, 0]),
        ([0, 5, 5], 0.2, [0, 1, 1]),
    ],
)
def test_every_class_has_its_share_and_keeps_a_training_row(counts, fraction, held):
    labels = np.repeat(np.arange(len(counts)), counts)
    train, val = train_val_split(len(labels), fraction, labels)
    assert sorted([*train, *val]) == list(range(len(labels)))
    got = np.bincount(labels[val], minlength=len(counts)).tolist()
    if held is None:
        assert (len(val), max(got)) == (2, 1)
    else:
        assert got == held


def test_the_draw_is_the_same_every_time_and_keeps_to_the_share():
    first, second = train_val_split(1000, 0.25), train_val_split(1000, 0.25)
    assert [len(part) for part in first] == [750, 250]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    halves = np.histogram(first[1], bins=4, range=(0, 1000))[0]
    assert halves.min() > 40, "rows of all parts of the file validate"


def test_rows_that_are_appended_leave_the_others_where_they_are():
    labels = np.arange(500) % 3
    _, before = train_val_split(499, 0.2, labels[:499])
    _, after = train_val_split(500, 0.2, labels)
    assert len(set(before) ^ set(after)) <= 3


def test_classes_on_one_side_of_one_row_and_of_none_are_named():
    train, val = np.array([2, 2, 0, 1, 0]), np.array([1, 0, 2, 0, 0])
    notes, warnings = describe_classes(("a", "b", "c", "d", "e"), train, val)
    assert notes == ["classes, with their training and validation samples: a 2/1, b 2/0, c 0/2, d 1/0, e 0/0"]
    assert [text.partition(" (")[0] + text[-5:] for text in warnings] == [
        "classes only among the validation samples, so that nothing teaches them: 'c'",
        "classes only among the training samples, so that nothing measures them: 'b'",
        "classes with one of the samples only: 'd'",
        "classes without any samples: 'e'",
    ]


def test_classes_that_differ_only_in_capital_letters_are_warned_of():
    counts = np.array([3, 3, 3])
    warnings = describe_classes(("cat", "Cat", "dog"), counts, counts)[1]
    assert warnings == ["classes spelled alike are taken as different: 'cat', 'Cat'"]
