"""The training job: one YAML document. What is left out is derived when the job runs, and logged."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from activelr_service.config.base import StrictConfig
from activelr_service.config.budget import BudgetConfig
from activelr_service.config.data import DataConfig
from activelr_service.config.model import ModelConfig
from activelr_service.config.optimizer import ActiveAdamWConfig, OptimizerConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


TAKEN_NAMES = ("mlartifacts", "studies", "analyses")  # some file systems do not tell capitals apart


class WorkersConfig(StrictConfig):
    """Ray Train workers. One worker on one machine runs in the calling process, without a cluster."""

    num_workers: int | None = Field(None, ge=1, le=4096, description="Derived: one per GPU, else two on the CPU.")
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPUs and threads of each. Derived: an equal share of this machine, or 1 on a cluster."
    )
    use_gpu: bool | None = Field(None, description="Derived: whether the cluster has GPUs.")
    max_failures: int = Field(3, ge=0, description="How many times lost workers are replaced before the run fails.")
    num_loader_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Loader processes per worker; by default its CPUs but one where images are decoded.",
    )


class TrackingConfig(StrictConfig):
    """Where the run is tracked."""

    backend: Literal["mlflow", "none"] = Field("mlflow", description="none tracks nothing: results are in files only.")
    uri: str | None = Field(None, description="Derived: $MLFLOW_TRACKING_URI, else SQLite under output_dir.")
    experiment: str = Field("activelr", min_length=1, max_length=200, description="MLflow experiment.")

    @field_validator("uri")
    @classmethod
    def no_credentials_in_the_uri(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ValueError("must not hold credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        if uri is not None and ":" in uri and "://" not in uri and not uri.startswith("file:"):
            raise ValueError("must begin with a scheme, such as http://HOST:5000 or sqlite:///FILE")
        return uri

    @model_validator(mode="after")
    def without_a_backend_there_is_no_uri(self) -> Self:
        if self.backend == "none" and self.uri is not None:
            raise ValueError(f"uri: needs the backend mlflow, got backend: none and uri: {self.uri}")
        return self


class TrainJob(StrictConfig):
    """A training job. Required: kind, name, model, data, and epochs or budget."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["epochs"]}, {"required": ["budget"]}]})

    kind: Literal["train"]
    name: Name = Field(description="Letters, digits, '.', '_' and '-'; it becomes a folder under output_dir.")
    model: ModelConfig
    data: DataConfig
    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the training data.")
    budget: BudgetConfig | None = Field(None, description="In place of epochs: {time: 2h} or {steps: 10000}.")
    task: Literal["classification", "regression", "language_modeling", "detection"] | None = Field(
        None, description="Derived from the data; given, it must suit them."
    )
    optimizer: OptimizerConfig = Field(default_factory=ActiveAdamWConfig)
    global_batch_size: int | None = Field(
        None,
        ge=1,
        le=2**20,
        description="Rows per optimizer step, over all workers. Leave it out: the workers find the largest worth it.",
    )
    grad_accum_steps: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Micro-batches per optimizer step, within the global batch. Derived: one, or as few as fit in memory.",
    )
    clip_grad_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient; None does not clip.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 runs the model under autocast.")
    compile: bool = Field(False, description="Compile the model with torch.compile.")
    channels_last: bool = Field(False, description="Keep images and convolutions in the channels-last memory format.")
    log_grad_norms: bool = Field(
        False, description="Log the L1 norm of the gradient of every layer (Figure 2 of the paper), and draw it."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="All randomness derives from it.")
    workers: WorkersConfig = Field(default_factory=WorkersConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    output_dir: str = Field(
        "outputs",
        min_length=1,
        description="Relative to $ACTIVELR_HOME, else to the current folder. Runs go to DIR/NAME/NUMBER.",
    )

    @field_validator("optimizer", mode="before")
    @classmethod
    def a_name_is_an_optimizer_and_without_one_it_is_the_default(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"type": value}
        return {"type": "active_adamw", **value} if isinstance(value, dict) else value

    @field_validator("name")
    @classmethod
    def not_the_name_of_another_file_of_the_output_folder(cls, name: str) -> str:
        if name.lower().startswith("mlflow.db") or name.lower() in TAKEN_NAMES:
            raise ValueError(f"must be another one: {name!r} is a file or folder of the output folder itself")
        return name

    @field_validator("budget")
    @classmethod
    def not_beside_epochs(cls, budget: BudgetConfig | None, info: ValidationInfo) -> BudgetConfig | None:
        if budget is not None and info.data.get("epochs") is not None:
            raise ValueError(f"give epochs or budget, not both, got epochs: {info.data['epochs']} as well")
        return budget

    @model_validator(mode="after")
    def has_a_length(self) -> Self:
        if self.epochs is None and self.budget is None:
            raise ValueError("epochs: is required, or budget: {time: 2h} or {steps: 10000} in its place")
        return self

    def length(self) -> str:
        """How long the run is: ``20 epochs``, ``10,000 steps`` or ``2h``."""
        return self.budget.describe() if self.budget else "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"

    def with_length_of(self, other: "TrainJob") -> "TrainJob":
        """This job with the epochs or the budget of another."""
        return self.model_copy(update={"epochs": other.epochs, "budget": other.budget})

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """Optimizer steps of the whole run; None where a budget of time decides."""
        return self.budget.steps if self.budget else (self.epochs or 0) * steps_per_epoch

    def time_budget(self) -> int | None:
        """Seconds of the whole run; None where epochs or steps decide."""
        return self.budget.seconds() if self.budget else None

    def micro_batch_size(self) -> int:
        """Rows per worker and forward pass of a resolved job."""
        assert self.global_batch_size is not None
        assert self.grad_accum_steps is not None
        assert self.workers.num_workers is not None
        return self.global_batch_size // (self.workers.num_workers * self.grad_accum_steps)
