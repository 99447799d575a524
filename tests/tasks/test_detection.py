"""Detection: mean average precision by hand and over ranks, and a training from devkit to exported model."""

import numpy as np
import pytest
import torch

from activelr_service.data import inspect_data
from activelr_service.export.model import load_model
from activelr_service.pyfunc import PyFuncModel
from activelr_service.runs.console import progress_line
from activelr_service.tasks import TASKS
from activelr_service.tasks.detection import MeanAveragePrecision
from activelr_service.training.build import check_forward
from tests.conftest import export_model, small_job
from tests.data.generate_voc import annotate, write_voc
from tests.ranks import run_ranks
from tests.training.test_loop import resolved, train

pytestmark = pytest.mark.slow

TASK = TASKS["detection"]
HERE, THERE, NOWHERE = [0.0, 0, 10, 10], [20.0, 20, 40, 40], [60.0, 60, 70, 70]


def row(index, boxes, labels=None, difficult=None):
    """A row whose image is its index, by which :class:`Recorded` knows what to answer."""
    target = {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        "difficult": torch.tensor(difficult or [False] * len(boxes), dtype=torch.bool),
        "image_id": torch.tensor(index),
    }
    return torch.tensor(index), target


class Recorded(torch.nn.Module):
    """Finds what it was given for each image: (boxes, scores) or (boxes, scores, labels)."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, images):
        return [self.answer(*self.answers[int(image)]) for image in images]

    def answer(self, boxes, scores, labels=None):
        labels = torch.tensor(labels or [1] * len(boxes), dtype=torch.int64)
        return {"boxes": torch.tensor(boxes).reshape(-1, 4), "scores": torch.tensor(scores), "labels": labels}


def measure(answers, rows, batch_size=2):
    evaluator = MeanAveragePrecision()
    for start in range(0, len(rows), batch_size):
        if (batch := TASK.collate(rows[start : start + batch_size])) is not None:
            evaluator.update(Recorded(answers), batch)
    return evaluator.compute()


def test_perfect_predictions_have_a_precision_of_one():
    rows = [row(0, [HERE, THERE], [1, 2]), row(1, []), row(2, [HERE], [3])]
    answers = [([HERE, THERE], [0.9, 0.8], [1, 2]), ([], []), ([HERE], [0.1], [3])]
    assert measure(answers, rows) == {"count": len(rows), "map": 1.0, "map_50": 1.0}


def test_the_average_precision_is_the_one_computed_by_hand():
    """Class 1 by score: found, false, found, of 3. Precision 1 up to recall 1/3 (34 of 101 points), 2/3 up to recall 2/3
    (33 points), 0 after. Class 2 is not found at all."""
    rows = [row(0, [HERE, THERE], [1, 2]), row(1, [HERE, THERE], [1, 1])]
    answers = [([HERE, NOWHERE], [0.9, 0.8]), ([THERE], [0.7])]
    by_hand = (34 * 1 + 33 * 2 / 3) / 101
    assert measure(answers, rows)["map_50"] == pytest.approx((by_hand + 0) / 2, abs=1e-6)


def test_a_box_counts_from_half_an_overlap_on():
    """9 x 10 of 10 x 10 is an IoU of 0.9: found at 9 of COCO's 10 thresholds, 0.5 to 0.9."""
    values = measure([([[0.0, 0, 9, 10]], [0.9])], [row(0, [HERE])])
    assert values["map_50"] == 1.0
    assert values["map"] == pytest.approx(0.9, abs=0.01)
    assert measure([([[0.0, 0, 4.9, 10]], [0.9])], [row(0, [HERE])])["map_50"] == 0.0


@pytest.mark.parametrize(
    "answer",
    [([HERE], [0.5]), ([HERE, THERE], [0.5, 0.9]), ([HERE, THERE, THERE], [0.5, 0.9, 0.8])],
    ids=["missed", "found", "found twice"],
)
def test_difficult_objects_are_neither_missed_nor_false(answer):
    rows = [row(0, [HERE, THERE], difficult=[False, True])]
    assert measure([answer], rows) == {"count": len(rows), "map": 1.0, "map_50": 1.0}
    rows = [row(0, [HERE, THERE], difficult=[False, False])]
    assert measure([([HERE], [0.5])], rows)["map_50"] < 0.6, "the same object counts if it is not difficult"


def test_rows_of_corrupt_images_are_left_out_and_a_batch_of_nothing_else_is_none():
    batch = TASK.collate([None, row(3, [HERE]), None])
    assert [int(image) for image in batch[0]] == [3]
    assert measure({3: ([HERE], [0.9])}, [None, None, row(3, [HERE])])["map_50"] == 1.0
    assert TASK.collate([None, None]) is None
    with pytest.raises(ValueError, match="no validation image that can be read has an object"):
        measure({3: ([HERE], [0.9])}, [None, row(3, [])])


def uneven():
    """Five rows: two ranks hold three and two, and in the second rank's nothing is there or nothing is found."""
    rows = [row(0, [HERE]), row(1, []), row(2, [THERE, HERE], [1, 2]), row(3, [HERE]), row(4, [HERE])]
    answers = [([HERE], [0.9]), ([HERE], [0.5]), ([THERE], [0.5]), ([], []), ([HERE, THERE], [0.5, 0.5])]
    return answers, rows


def detection_job(root, **changes):
    size = {"min_size": 64, "max_size": 64, "box_detections_per_img": 10}
    return small_job(
        root,
        epochs=1,
        model={"type": "torchvision_detection", "name": "fasterrcnn_mobilenet_v3_large_320_fpn", "args": size},
        data={"type": "voc", "root": str(root), "years": ["2007"], "on_corrupt": "skip"},
        **{"global_batch_size": 4, **changes},
    )


def corrupt_devkit(root):
    """Eight training images, one of them without objects and one truncated, and four for validation."""
    folder = write_voc(root)
    annotate(folder / "Annotations" / "2007_train_000001.xml", (64, 48), [])
    path = folder / "JPEGImages" / "2007_train_000002.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    return root


def test_a_detector_trains_and_its_export_finds_the_same(tmp_path):
    job = resolved(detection_job(corrupt_devkit(tmp_path)))
    info = inspect_data(job.data)
    check_forward(job, info)
    training, (record,) = train(job, tmp_path)
    assert record.metrics["train/loss"] > 0
    assert 0 <= record.metrics["val/map"] <= record.metrics["val/map_50"] <= 1
    assert "val mAP50 " in progress_line(record, job, 0)
    export_model(tmp_path / "exported", training.model, job.model, info, job.task)
    loaded = load_model(tmp_path / "exported")
    images = np.random.default_rng(0).random((2, 3, 48, 64), dtype=np.float32)
    found = PyFuncModel(loaded).predict(images)
    expected = training.model.eval()(list(torch.from_numpy(images)))
    assert len(found) == 2
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == {"boxes", "labels", "scores"}
        assert np.array_equal(mine["boxes"], theirs["boxes"].detach().numpy())


def test_ranks_train_alike_and_measure_as_one_process_does(tmp_path):
    """With an image without objects, a corrupt one, and shares of different size, one of them without a row."""
    job = resolved(detection_job(corrupt_devkit(tmp_path)), 2)
    first, second = run_ranks(train_and_measure, 2, tmp_path, job, tmp_path)
    alone = measure(*uneven())
    assert 0 < alone["map_50"] < 1
    assert first[0] == second[0] == [alone, alone]
    assert first[1] == second[1]
    assert (first[2], second[2]) == (2, 2)


def train_and_measure(rank, job, folder):
    """The measures of shared rows, this rank's val/map_50 after an epoch, and how many validation samples it had. That the
    weights of the ranks are the same to the last bit is checked by the training itself."""
    answers, rows = uneven()
    measures = [measure(answers, rows[rank::2]), measure(answers, rows if rank == 1 else [])]
    training, history = train(job, folder)
    return measures, history[0].metrics["val/map_50"], sum(len(images) for images, _ in training.val_loader)
