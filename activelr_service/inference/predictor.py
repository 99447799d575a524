"""A trained model that answers raw rows: it reads them as the training did, and says what its outputs mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.data.example import EXAMPLE
from activelr_service.data.info import DataInfo
from activelr_service.data.raw_inputs import KINDS, read_inputs
from activelr_service.errors import InputError, naming_missing_packages
from activelr_service.export.model import RECIPE, find_model, load_model
from activelr_service.inference import answers, texts
from activelr_service.inference.arrays import ArrayReader
from activelr_service.inference.images import ImageReader
from activelr_service.inference.notes import Notes
from activelr_service.inference.read import Read
from activelr_service.inference.tables import TableReader
from activelr_service.inference.texts import Codec, TextReader

BATCH_SIZES = {"table": 8192, "array": 256, "image": 32, "text": 32}


class Predictor:
    """A model and all that raw input needs.

    ``task`` is the task; ``kind`` is "table", "image", "text" or "array"; ``classes`` are the names of the classes;
    ``module`` is the torch module in eval mode; ``temperature`` divides the logits before they become probabilities;
    ``data`` is the config of the data trained on, without the places of files; ``info`` describes these data.
    """

    def __init__(self, folder: Path, inputs: dict[str, Any] | None = None, device: str = "cpu") -> None:
        self.folder = folder
        recipe = json.loads((folder / RECIPE).read_text())
        inputs = recipe.get("inputs") or inputs
        if inputs is None:
            text = f"the model in {folder} was exported by an earlier version, and does not say how raw input is read"
            raise InputError(f"{text}; predict with its run, `activelr predict RUN INPUT`, or train it again")
        self.data: Any = read_inputs(inputs, folder)
        self.module = load_model(folder).to(device)
        self.info = DataInfo.from_json(recipe["data"])
        self.task: str = recipe["task"]
        self.kind = KINDS[self.data.type]
        self.classes = answers.class_names(self.info)
        self.temperature = float(recipe.get("temperature", 1.0))
        self.device = device
        self.notes = Notes()
        self.codec = Codec(folder, self.data.type == "stdlib_chars") if self.kind == "text" else None
        self.reader = self._make_reader()

    @property
    def columns(self) -> list[str]:
        """The columns that raw input needs, in order."""
        return list(self.reader.names)

    @classmethod
    @naming_missing_packages("activelr_service.Predictor.load")
    def load(cls, source: str | Path, device: str = "cpu", inputs: dict[str, Any] | None = None) -> "Predictor":
        """The predictor of a run's ``model`` folder, or of an MLflow URI such as ``models:/digits/1``.

        ``inputs`` say how raw input is read, for a model that does not say it itself. Raises what
        :func:`~activelr_service.load_model` raises, and :class:`InputError` for such a model without ``inputs``.
        """
        return cls(find_model(source), inputs, device)

    def predict(self, inputs: Any, batch_size: int | None = None, max_new_tokens: int | None = None) -> Any:
        """The answers to the raw rows of a DataFrame, as a DataFrame of one row for each, with the same index.

        The answers of a bad row are missing, and the column ``error`` says why. There is such a column only if a row is
        bad. Raises :class:`InputError` if a column is missing.
        """
        if not hasattr(inputs, "columns"):
            raise InputError(f"a DataFrame with the columns {self.columns[:20]} is needed, got {type(inputs).__name__}")
        answered = self.answer(self.reader.rows(inputs, self.notes), self.notes, batch_size, max_new_tokens)
        self.notes.log()
        if answered["error"].isna().all():
            answered = answered.drop(columns="error")
        return answered.set_axis(inputs.index, axis=0)

    def answer(self, rows: Any, notes: Notes, batch_size: int | None = None, max_new_tokens: int | None = None) -> Any:
        """The answers to rows of this model's reader, as a DataFrame with a column ``error``, missing for good rows."""
        import pandas as pd

        batches = self.reader.batches(rows, batch_size or BATCH_SIZES[self.kind], notes)
        parts = [self._frame(read, notes, max_new_tokens) for read in batches]
        return pd.concat(parts, ignore_index=True) if parts else self.no_answers()

    def no_answers(self) -> Any:
        """The DataFrame of the answers to no rows."""
        import pandas as pd

        return pd.DataFrame({name: [] for name in (*answers.answer_names(self.task, self.info), "error")})

    def to_tensors(self, inputs: Any) -> Any:
        """What the module gets of the good rows of a DataFrame, as one tensor on the CPU."""
        import torch

        rows = self.reader.rows(inputs, Notes())
        parts = [read.inputs for read in self.reader.batches(rows, BATCH_SIZES[self.kind], Notes())]
        return torch.cat([part if isinstance(part, torch.Tensor) else torch.stack(part) for part in parts])

    def example(self) -> Any:
        """A few raw rows of the validation split, as a DataFrame that :meth:`predict` takes.

        Raises ``FileNotFoundError`` if the model has none, as those of earlier versions.
        """
        import pandas as pd

        return pd.read_parquet(self.folder / EXAMPLE)

    def _make_reader(self) -> Any:
        if self.kind == "table":
            return TableReader(self.data)
        if self.kind == "image":
            return ImageReader(self.data)
        if self.codec is not None:
            return TextReader(self.codec)
        return ArrayReader(self.info, self.task == "language_modeling")

    def _frame(self, read: Read, notes: Notes, max_new_tokens: int | None) -> Any:
        """The answers to a batch, with missing values and an ``error`` for bad rows."""
        import pandas as pd

        columns = self._columns(read.inputs, notes, max_new_tokens) if len(read.good) else {}
        names = answers.answer_names(self.task, self.info)
        frame = pd.DataFrame(columns or {name: [] for name in names}, index=read.good)
        frame = frame.reindex(range(read.size))
        if self.task not in ("detection", "language_modeling"):
            lost = frame.index[frame[names[-1]].isna() & frame.index.isin(read.good)]
            read.errors.update(dict.fromkeys(lost, "the model's output is not a finite number"))
            frame.loc[lost, names] = None
        errors = np.full(read.size, None, dtype=object)
        for row, text in read.errors.items():
            errors[row] = text
        return frame.assign(error=errors)

    def _columns(self, inputs: Any, notes: Notes, max_new_tokens: int | None) -> dict[str, Any]:
        """The answer columns of the inputs of good rows."""
        import torch

        with torch.inference_mode():
            if self.task == "language_modeling":
                return self._text_columns(inputs, notes, max_new_tokens)
            if self.task == "detection":
                found = self.module([image.to(self.device) for image in inputs])
                return answers.detection(found, self.info)
            outputs = self.module(inputs.to(self.device))
        if not isinstance(outputs, torch.Tensor):
            text = f"the module answers with {type(outputs).__name__}, and the task {self.task!r} is not one of this package"
            raise InputError(f"{text}; use load_model and call the module")
        outputs = outputs.float().cpu()
        if self.task == "classification":
            return answers.classification(outputs, self.info, self.temperature)
        return answers.numbers(outputs, self.data)

    def _text_columns(self, tokens: list[Any], notes: Notes, max_new_tokens: int | None) -> dict[str, Any]:
        """What follows each text, if the module can generate, and how well the model predicts the text."""
        block_size = self.info.input_shape[0]
        generated: list[Any] = [None] * len(tokens)
        if hasattr(self.module, "generate"):
            end = self.codec.end if self.codec else None
            ids = texts.generate(self.module, tokens, block_size, end, max_new_tokens, notes, self.device)
            generated = [self.codec.decode(row) if self.codec else row for row in ids]
        else:
            notes.say("the model has no method generate(): nothing is generated")
        return {"generated": generated, **texts.losses(self.module, tokens, block_size, self.device)}


def load_module_or_predictor(source: str | Path) -> tuple[Any, Predictor | None]:
    """The torch module of a model, and its predictor; None for a model that does not say how raw input is read."""
    folder = find_model(source)
    if "inputs" not in json.loads((folder / RECIPE).read_text()):
        return load_model(folder), None
    predictor = Predictor(folder)
    return predictor.module, predictor
