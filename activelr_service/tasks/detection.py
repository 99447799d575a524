"""Object detection: the sum of the model's losses; mean average precision as COCO and PASCAL VOC measure it."""

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from activelr_service.tasks.task import Sums, Task, example_sums, mean_loss


def step(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    """``batch``: (images, targets) of a model in training mode, which returns its losses by name."""
    images, targets = batch
    loss = torch.stack(list(model(images, targets).values())).sum()
    return loss, example_sums(loss, len(images))


def collate(rows: list[Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]] | None:
    """(images, targets) as lists, since images differ in size; without the rows that are None, corrupt ones; None if no row
    is left."""
    kept = [row for row in rows if row is not None]
    if not kept:
        return None
    return [image for image, _ in kept], [target for _, target in kept]


class MeanAveragePrecision:
    """Average precision over classes: ``map_50`` at IoU 0.5, the measure of PASCAL VOC, and ``map``, the mean over IoU
    0.5 to 0.95 of COCO. Both from 101 points of the precision-recall curve and the best 100 boxes of an image.

    Objects marked difficult count neither as missed nor, when found, as false (the rule of VOC's development kit):
    they are COCO's crowds, which a box matches by the share of its own area that lies in them.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []

    def update(self, model: nn.Module, batch: Any) -> None:
        """Adds the predictions of a model in evaluation mode, and the targets."""
        images, targets = batch
        for found, target in zip(model(images), targets, strict=True):
            crowd = {"iscrowd": target["difficult"].long()}
            truth = {"boxes": target["boxes"], "labels": target["labels"], **crowd}
            row = {"found": _on_cpu(found), "truth": _on_cpu(truth), "image_id": int(target["image_id"])}
            self.images.append(row)

    def compute(self) -> dict[str, float]:
        """Over the images of all ranks, equal on every rank; raises ``ValueError`` if there is no object to find."""
        from torchmetrics.detection import MeanAveragePrecision as Metric

        logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # it logs its tables
        images = sorted(_over_ranks(self.images), key=lambda row: row["image_id"])  # ties are broken by the order
        if all(row["truth"]["iscrowd"].all() for row in images):
            raise ValueError("no held-out image that can be read has an object that is not difficult")
        metric = Metric(backend="faster_coco_eval", sync_on_compute=False)
        metric.update([row["found"] for row in images], [row["truth"] for row in images])
        values = metric.compute()
        return {"count": len(images), **{name: values[name].item() for name in ("map", "map_50")}}


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _over_ranks(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all ranks. torchmetrics would gather tensor by tensor and wait for ever for a rank that has fewer images."""
    if not dist.is_initialized():
        return images
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, images)
    return [row for part in parts for row in part]


TASK = Task(
    step,
    mean_loss,
    ("loss", "count"),
    score="map_50",
    higher_is_better=True,
    collate=collate,
    evaluator=MeanAveragePrecision,
)
"""Detection: train with ``step``, measure with :class:`MeanAveragePrecision`."""
