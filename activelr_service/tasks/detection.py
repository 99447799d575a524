"""Object detection: the sum of the model's losses, and mean average precision as COCO and PASCAL VOC measure it."""

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from activelr_service.tasks.losses import Sums, sample_sums


def compute_loss(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    """The sum of the losses that a torchvision detector returns by name in training mode.

    ``batch`` is (images, targets), two lists as :func:`collate` makes them.
    """
    images, targets = batch
    loss = torch.stack(list(model(images, targets).values())).sum()
    return loss, sample_sums(loss, len(images))


def collate(samples: list[Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]] | None:
    """(images, targets) as two lists, because images differ in size. None if no sample can be read.

    A sample is None if its image is corrupt and the job skips such images.
    """
    readable = [sample for sample in samples if sample is not None]
    if not readable:
        return None
    return [image for image, _ in readable], [target for _, target in readable]


class MeanAveragePrecision:
    """Collects predictions and computes average precision, the mean over classes.

    ``map_50`` counts a box as found at an IoU of 0.5, as PASCAL VOC does (Everingham et al. 2010). ``map`` is the mean over
    IoU 0.5 to 0.95, as COCO has it (Lin et al. 2014). Both use 101 points of the precision-recall curve and the 100 best
    boxes of an image.

    An object marked difficult is not missed if no box finds it, and a box that finds it is not false. VOC's development
    kit has this rule. Here such objects are COCO's crowds: a box matches a crowd by the share of its own area that lies
    in it.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []

    def update(self, model: nn.Module, batch: Any) -> None:
        """Add the predictions of a model in evaluation mode, and the targets, of a batch (images, targets)."""
        images, targets = batch
        for found, target in zip(model(images), targets, strict=True):
            crowd = {"iscrowd": target["difficult"].long()}
            truth = {"boxes": target["boxes"], "labels": target["labels"], **crowd}
            row = {"found": _on_cpu(found), "truth": _on_cpu(truth), "image_id": int(target["image_id"])}
            self.images.append(row)

    def compute(self) -> dict[str, float]:
        """The metrics over the images of all ranks, and ``count``, the number of images. Every rank gets the same.

        Raises ``ValueError`` if no image has an object that is not difficult.
        """
        from torchmetrics.detection import MeanAveragePrecision as Metric

        logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # it logs all its tables
        images = sorted(_gather(self.images), key=lambda row: row["image_id"])  # the order breaks ties
        if all(row["truth"]["iscrowd"].all() for row in images):
            raise ValueError("no validation image that can be read has an object that is not difficult")
        metric = Metric(backend="faster_coco_eval", sync_on_compute=False)
        metric.update([row["found"] for row in images], [row["truth"] for row in images])
        values = metric.compute()
        return {"count": len(images), **{name: values[name].item() for name in ("map", "map_50")}}


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _gather(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images of all ranks.

    torchmetrics would gather tensor by tensor: a rank with fewer images than the others would make them wait forever.
    """
    if not dist.is_initialized():
        return images
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, images)
    return [row for part in parts for row in part]
