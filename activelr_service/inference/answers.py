"""The meaning of a model's outputs, as columns of a table."""

from typing import Any

import numpy as np

from activelr_service.data.info import DataInfo

SIDES = ("xmin", "ymin", "xmax", "ymax")


def class_names(info: DataInfo) -> list[str]:
    """The names of the classes; their numbers as texts if the data have no names."""
    return list(info.classes) or [str(number) for number in range(info.num_classes or 0)]


def answer_names(task: str, info: DataInfo) -> list[str]:
    """The columns of the answers, in order."""
    if task == "classification":
        return ["prediction", *(f"probability_{name}" for name in class_names(info))]
    if task == "detection":
        return ["boxes"]
    if task == "language_modeling":
        return ["generated", "loss", "perplexity"]
    return _number_names(info.num_outputs or info.num_classes or 1)


def answer_types(task: str, info: DataInfo, kind: str) -> dict[str, Any]:
    """The arrow types of the columns of the answers, and of ``error``."""
    import pyarrow as pa

    box = pa.struct([("class", pa.string()), *((side, pa.float64()) for side in ("score", *SIDES))])
    special = {
        "boxes": pa.list_(box),
        "generated": pa.string() if kind == "text" else pa.list_(pa.int64()),
        **({"prediction": pa.string()} if task == "classification" else {}),
    }
    names = answer_names(task, info)
    return {**{name: special.get(name, pa.float64()) for name in names}, "error": pa.string()}


def _number_names(count: int) -> list[str]:
    return ["prediction"] if count == 1 else [f"prediction_{number}" for number in range(count)]


def classification(outputs: Any, info: DataInfo, temperature: float) -> dict[str, Any]:
    """The class of the largest logit, and the float64 softmax of the logits (rows, classes) divided by the temperature."""
    import torch

    names = class_names(info)
    outputs = torch.where(outputs.isfinite().all(dim=1, keepdim=True), outputs, torch.nan)
    shares = torch.softmax(outputs.double() / temperature, dim=1).numpy()
    guesses = np.array(names, dtype=object)[outputs.argmax(dim=1).numpy()]
    return {"prediction": guesses, **{f"probability_{name}": shares[:, k] for k, name in enumerate(names)}}


def numbers(outputs: Any, data: Any) -> dict[str, Any]:
    """The outputs (rows, ...) as float64 numbers, in the unit of the target."""
    values = outputs.double().flatten(1).numpy() if outputs.dim() > 1 else outputs.double()[:, None].numpy()
    column = getattr(data, "target_column", None)  # of a table: the model was trained on the standardized target
    values = np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)
    if column is not None:
        values = values * column.std + column.mean
    return dict(zip(_number_names(values.shape[1]), values.T, strict=True))


def detection(found: list[dict[str, Any]], info: DataInfo) -> dict[str, Any]:
    """The boxes of each image, in pixels of the stored image from 0, the best first. Label k is the class k - 1."""
    return {"boxes": [_boxes(image, info.classes) for image in found]}


def _boxes(image: dict[str, Any], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = zip(image["labels"].tolist(), image["scores"].tolist(), image["boxes"].tolist(), strict=True)
    return [
        {"class": classes[label - 1], "score": score, **dict(zip(SIDES, box, strict=True))}
        for label, score, box in rows
    ]
