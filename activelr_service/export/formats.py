"""A trained model as one file for other programs: ONNX, or a program of ``torch.export``.

The file answers as the model does: it holds the temperature and the softmax of a classifier, and gives a regression in the
unit of its target. It takes the tensors that raw rows become.
"""

import copy
import json
import logging
import os
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from activelr_service.errors import CommandError, naming_missing_packages
from activelr_service.export.description import INPUT, OUTPUT, OUTPUTS, describe

Format = Literal["onnx", "torch"]
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCES = {False: 1e-5, True: 1e-3}  # by whether it is in half precision
HALF_WEIGHTS = "float32 with float16 weights"
METADATA = "model.json"  # the description in a file of torch.export: load(path, extra_files={"model.json": ""})


class Exported(NamedTuple):
    """The file, the JSON file that describes it, and the largest difference that the check found.

    ``precision`` is float32 or float16, or :data:`HALF_WEIGHTS`.
    """

    path: Path
    description: Path
    rows: int
    difference: float
    tolerance: float
    precision: str


@naming_missing_packages("activelr export")
def export_file(predictor: Any, kind: Format, path: Path, is_half: bool = False) -> Exported:
    """Write the model of a :class:`~activelr_service.inference.predictor.Predictor` to ``path``, and what it takes and gives
    to ``path`` with ``.json`` added.

    With ``is_half`` the weights and the computation are float16; what is taken and given stays float32. Where the answers
    are not precise enough then, only the weights are float16. The written file is run on the example rows of the model
    first. Its answers may differ from those of ``predictor`` by 1e-5, in half precision by 1e-3: of the answer, or of 1
    (for a target, its standard deviation), whichever is larger.

    Raises :class:`CommandError` if the model cannot be exported or if the answers differ. Then nothing is written.
    """
    if predictor.task not in OUTPUTS:
        known = ", ".join(task.replace("_", " ") for task in OUTPUTS)
        raise CommandError(f"a model for {predictor.task} cannot be exported as {kind}; models for {known} can")
    if path.suffix != ENDINGS[kind]:
        raise CommandError(f"the name of such a file ends in {ENDINGS[kind]}, got {path.name}")
    if not path.parent.is_dir():
        raise CommandError(f"there is no folder {path.parent} to write {path.name} to")
    tolerance, found = TOLERANCES[is_half], {}
    for precision in ("float16", HALF_WEIGHTS) if is_half else ("float32",):
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            done = _write(predictor, kind, Path(folder, path.name), precision, tolerance)
            if done.difference <= tolerance:  # NaN is not
                description = path.with_name(done.description.name)
                os.replace(done.description, description)
                os.replace(done.path, path)
                return done._replace(path=path, description=description)
            found[precision] = f"{done.difference:.1e}"
    text = f"the answers of the {kind} file differ from the model's by {' or '.join(found.values())}"
    raise CommandError(f"{text}, more than {tolerance:g}; nothing is exported" + "; try it without --half" * is_half)


def _write(predictor: Any, kind: Format, path: Path, precision: str, tolerance: float) -> Exported:
    """Write the file and its description, and compare its answers with those of the model."""
    rows, expected = _example(predictor)
    about = describe(predictor, rows, kind, precision)
    with _failing_as_one_line(kind):
        WRITERS[kind](make_graph(predictor, precision), _several(rows), path, about)
    difference = _check(RUNNERS[kind](path), rows, expected, _unit(predictor, expected))
    about["checked"] = {"rows": len(rows), "largest_difference": difference, "tolerance": tolerance}
    description = path.with_name(f"{path.name}.json")
    description.write_text(json.dumps(about, indent=1))
    return Exported(path, description, len(rows), difference, tolerance, precision)


def _example(predictor: Any) -> tuple[Any, np.ndarray]:
    """The example rows as the tensor that the module gets, and the right answers to them as numbers (rows, ...)."""
    import torch

    try:
        example = predictor.example()
    except FileNotFoundError:
        text = "the model keeps no example rows to check an export with"
        raise CommandError(f"{text}: models of earlier versions and of data of one's own have none") from None
    if predictor.task == "language_modeling":
        rows = predictor.to_tensors(example.head(1))  # texts differ in length
        with torch.no_grad():
            return rows, predictor.module(input_ids=rows).logits.numpy()
    rows, answers = predictor.to_tensors(example), predictor.predict(example)
    if "error" in answers:
        answers = answers[answers["error"].isna()].drop(columns="error")
    if predictor.task == "classification":
        answers = answers.drop(columns="prediction")
    return rows, answers.to_numpy(dtype=np.float64)


def _unit(predictor: Any, expected: np.ndarray) -> float:
    """What a difference is compared with at least: the standard deviation of a target; 1 for probabilities and logits."""
    if predictor.task != "regression":
        return 1.0
    column = getattr(predictor.data, "target_column", None)
    return float(expected.std()) if column is None else float(column.std)


def _several(rows: Any) -> Any:
    """At least two rows: an export for one row would take one row only."""
    return rows if len(rows) > 1 else rows.repeat(2, *[1] * (rows.dim() - 1))


def make_graph(predictor: Any, precision: str) -> Any:
    """A torch module from the tensor of rows to the answers: probabilities, values in the target's unit, or logits."""
    import torch
    from torch import nn

    task, temperature = predictor.task, predictor.temperature
    scale = getattr(predictor.data, "target_column", None)

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            module = copy.deepcopy(predictor.module).cpu().eval()
            self.module = module if precision == "float32" else module.half()

        def call(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Any:
            if precision != HALF_WEIGHTS:
                return self.module(*inputs, **named)
            weights = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
            wide = {name: one.float() if one.is_floating_point() else one for name, one in weights.items()}
            return torch.func.functional_call(self.module, wide, inputs, named)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            if task == "language_modeling":
                return self.call(input_ids=rows).logits.float()
            outputs = self.call(rows.half() if precision == "float16" else rows).float()
            if task == "classification":
                return torch.softmax(outputs / temperature, dim=1)
            outputs = outputs.flatten(1) if outputs.dim() > 1 else outputs[:, None]
            return outputs if scale is None else outputs * scale.std + scale.mean

    return Answers().requires_grad_(False).eval()


def _write_torch(graph: Any, rows: Any, path: Path, about: dict[str, Any]) -> None:
    import torch

    program = torch.export.export(graph, (rows,), dynamic_shapes=(_free_sizes(rows),))
    torch.export.save(program, path, extra_files={METADATA: json.dumps(about)})


def _write_onnx(graph: Any, rows: Any, path: Path, about: dict[str, Any]) -> None:
    """The description is metadata of the model: texts as they are, the rest as JSON."""
    import onnx
    import torch

    program = torch.onnx.export(
        graph,
        (rows,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=(_free_sizes(rows),),
    )
    model = program.model_proto
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


def _free_sizes(rows: Any) -> dict[int, Any]:
    """The sizes that may differ from those of ``rows``: their number, and that of the tokens of a text."""
    import torch

    free = {0: torch.export.Dim("rows", min=1)}
    return free if rows.is_floating_point() else {**free, 1: torch.export.Dim("tokens", min=2)}


def _run_torch(path: Path) -> Any:
    import torch

    module = torch.export.load(path).module()
    return lambda rows: module(rows).numpy()


def _run_onnx(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {INPUT: rows.numpy()})[0]


def _check(run: Any, rows: Any, expected: np.ndarray, unit: float) -> float:
    """The largest difference from the right answers: of all rows at once, of one alone, and of a text's first half."""
    cases = [(rows, expected), (rows[:1], expected[:1])]
    if not rows.is_floating_point():
        half = max(2, rows.shape[1] // 2)
        cases.append((rows.repeat(3, 1)[:, :half], np.repeat(expected, 3, axis=0)[:, :half]))
    found = [(run(some).astype(np.float64), right) for some, right in cases]
    for answers, right in found:
        if answers.shape != right.shape:
            raise CommandError(f"the file gives answers of shape {answers.shape}; the model gives {right.shape}")
    return max(_difference(answers, right, unit) for answers, right in found)


def _difference(found: np.ndarray, expected: np.ndarray, unit: float) -> float:
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), unit), initial=0.0))


@contextmanager
def _failing_as_one_line(kind: str) -> Any:
    """What torch raises for a model that it cannot export becomes a :class:`CommandError` of one line."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and onnxscript's own, which no user can act on
            yield
    except ImportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CommandError(f"torch cannot export this model as {kind}: {reason}") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


WRITERS = {"torch": _write_torch, "onnx": _write_onnx}
RUNNERS = {"torch": _run_torch, "onnx": _run_onnx}
