"""What an exported file takes and gives, as JSON for the people and programs that use it without this package."""

from importlib.metadata import version
from typing import Any

INPUT, OUTPUT = "input", "output"  # names in the file
OUTPUTS = {  # by task: what the numbers of the output are
    "classification": "probabilities of the classes, in the order of `classes`; the temperature is applied",
    "regression": "values in the unit of the target",
    "language_modeling": "logits of the next token at each place",
}


def describe(predictor: Any, rows: Any, kind: str, precision: str) -> dict[str, Any]:
    """``predictor`` is a :class:`~activelr_service.inference.predictor.Predictor`, ``rows`` what its module gets."""
    sizes = rows.shape[1:] if rows.is_floating_point() else ["tokens"]
    taken = {"name": INPUT, "dtype": str(rows.dtype).removeprefix("torch."), "shape": ["rows", *sizes]}
    given = {"name": OUTPUT, "dtype": "float32", "meaning": OUTPUTS[predictor.task]}
    about: dict[str, Any] = {
        "format": kind,
        "activelr_service": version("activelr-service"),
        "task": predictor.task,
        "precision": precision,
        "input": {**taken, "preprocessing": PREPROCESSING[predictor.kind], **_features(predictor)},
        "output": given,
    }
    if predictor.task == "classification":
        about |= {"classes": list(predictor.classes), "temperature": predictor.temperature}
    return about


PREPROCESSING = {
    "table": "one input for a column of numbers: (value - mean) / std, 0 for a missing value; for a column of categories "
    "one input each: 1 for the value of the row, else 0. `features` are in the order of the inputs.",
    "image": "RGB images, channels first, of the size in `shape`, resized and normalized as `data` says. Where `data` has a "
    "crop_share, the shorter side (with squash, each side) is resized to round(image_size / crop_share), and the center "
    "is cropped to image_size. Then pixels are divided by 255, and (value - mean) / std is taken of each color. "
    "Transparent pixels are put on white, 16-bit gray is divided by 257, and the EXIF orientation is applied.",
    "text": "token ids of the tokenizer.json of the model.",
    "array": "arrays as the training saw them: stored integers divided by `divided_by`.",
}


def _features(predictor: Any) -> dict[str, Any]:
    """What each place of the input is."""
    if predictor.kind == "array":
        return {"divided_by": predictor.info.input_scale}
    if predictor.kind != "table":
        return {"data": predictor.data.model_dump(mode="json", exclude={"root", "path", "classes"})}
    features: list[dict[str, Any]] = []
    for column in predictor.data.columns or []:
        if hasattr(column, "categories"):
            features += [{"column": column.name, "category": category} for category in column.categories]
        else:
            features.append({"column": column.name, "mean": column.mean, "std": column.std})
    return {"features": features}
