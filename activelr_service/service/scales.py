"""How the answers of a run's model are to be read when it is measured."""

import json

from activelr_service.export.model import RECIPE
from activelr_service.runs.run import Run
from activelr_service.training.measure import Scales


def read_scales(run: Run) -> Scales:
    """The unit of the target that the run was trained on, and the temperature of its exported model, which is 1 for a model
    of an older version."""
    column = getattr(run.job().data, "target_column", None)
    temperature = json.loads((run.model / RECIPE).read_text()).get("temperature", 1.0)
    return Scales(1.0 if column is None else column.std, temperature)
