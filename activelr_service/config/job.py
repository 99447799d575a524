"""The training job, in three types: as a person writes it, as it is resolved, and complete with its batch size.

``TrainJob`` is one YAML document; nearly every key may be left out. ``ResolvedJob`` has a value for each of them,
derived from the data and the machine. ``CompleteJob`` has the batch size too, which the workers find when they start.
"""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from activelr_service.config.base import StrictConfig
from activelr_service.config.data import DataConfig, ImagesConfig
from activelr_service.config.duration import BudgetConfig, Duration, EarlyStopConfig, Interval, IntervalConfig
from activelr_service.config.images import IMAGE_SIZE
from activelr_service.config.model import ModelConfig, source_of_weights
from activelr_service.config.optimizer import ActiveAdamWConfig, OptimizerConfig
from activelr_service.config.task import TaskName

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
LARGEST_BATCH = 2**20
TAKEN_NAMES = ("mlartifacts", "studies", "analyses")  # some file systems do not tell capitals apart


class WorkersConfig(StrictConfig):
    """Ray Train workers. One worker on one machine runs in the calling process, without a cluster."""

    num_workers: int | None = Field(
        None, ge=1, le=4096, description="Number of Ray Train workers. Derived: one for each GPU, else two on the CPU."
    )
    cpus_per_worker: int | None = Field(
        None,
        ge=1,
        description="CPUs and threads of each worker. Derived: an equal share of this machine, or 1 on a cluster.",
    )
    use_gpu: bool | None = Field(None, description="Whether each worker has a GPU. Derived: whether there are GPUs.")
    max_failures: int = Field(3, ge=0, description="How many times lost workers are replaced before the run fails.")
    num_loader_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes of each worker that load data. Derived: one fewer than its CPUs where images are decoded, "
        "else none.",
    )


class ResolvedWorkersConfig(WorkersConfig):
    """The workers of a resolved job: nothing is left to derive."""

    num_workers: int = Field(ge=1, le=4096, description="Number of workers.")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs and threads of each.")
    use_gpu: bool = Field(False, description="Whether each worker has a GPU.")
    num_loader_workers: int = Field(0, ge=0, le=64, description="Loader processes of each.")


class TrackingConfig(StrictConfig):
    """How a run is tracked: in MLflow, or not at all."""

    backend: Literal["mlflow", "none"] = Field("mlflow", description="With `none` nothing is tracked.")
    uri: str | None = Field(
        None, description="The MLflow server or store. Derived: $MLFLOW_TRACKING_URI, else SQLite in output_dir."
    )
    experiment: str = Field(
        "activelr", min_length=1, max_length=200, description="The MLflow experiment that the run belongs to."
    )
    system_metrics: bool = Field(
        False,
        description="Whether MLflow gets the use of CPU, memory, disk, network and GPUs of the machines that train.",
    )

    @field_validator("uri")
    @classmethod
    def no_credentials_in_the_uri(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ValueError("must not hold credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        if uri is not None and ":" in uri and "://" not in uri and not uri.startswith("file:"):
            raise ValueError("must begin with a scheme, such as http://HOST:5000 or sqlite:///FILE")
        return uri

    @model_validator(mode="after")
    def without_a_backend_nothing_is_tracked(self) -> Self:
        if self.backend == "none" and self.uri is not None:
            raise ValueError(f"uri: needs the backend mlflow, got backend: none and uri: {self.uri}")
        if self.backend == "none" and self.system_metrics:
            raise ValueError("system_metrics: needs the backend mlflow, got backend: none and system_metrics: true")
        return self


class TrainJob(StrictConfig):
    """A training job. Required: kind, name, model, data, and epochs or budget."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["epochs"]}, {"required": ["budget"]}]})

    kind: Literal["train"] = Field(description="Says that this document is a training job.")
    name: Name = Field(description="Letters, digits, '.', '_' and '-'. The name becomes a folder in output_dir.")
    model: ModelConfig = Field(description="What is trained.")
    data: DataConfig = Field(description="What it is trained and validated on.")
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Passes over the training data. Give these or budget."
    )
    budget: BudgetConfig | None = Field(
        None, description="The length of the run in place of epochs: {time: 2h} or {steps: 10000}."
    )
    task: TaskName | None = Field(
        None,
        description="classification, regression, language_modeling, detection, or a task of your own. "
        "Derived from the data; given, it must suit them.",
    )
    optimizer: OptimizerConfig = Field(
        default_factory=ActiveAdamWConfig,
        description="The optimizer. A name alone takes its defaults; without a type it is active_adamw.",
    )
    global_batch_size: int | None = Field(
        None,
        ge=1,
        le=LARGEST_BATCH,
        description="Samples per optimizer step, over all workers. Leave it out: the workers find the largest one that is "
        "worth it.",
    )
    grad_accum_steps: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Parts in which a worker takes its share of the global batch. Derived: one, or as few as fit "
        "into memory.",
    )
    clip_grad_norm: float | None = Field(
        None, gt=0, description="The largest norm of the gradient. Left out: gradients are not clipped."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="The number format of the model. bfloat16 runs it under autocast."
    )
    compile: bool = Field(False, description="Whether the model is compiled with torch.compile.")
    channels_last: bool = Field(
        False, description="Whether images and convolutions have the channels-last memory format."
    )
    log_grad_norms: bool = Field(
        False,
        description="Whether the L1 norm of the gradient of every layer is logged and drawn (Figure 2 of the paper).",
    )
    log_every: Interval = Field(
        IntervalConfig(minutes=0.5),
        description="How often the loss within an epoch is shown, logged and sent to MLflow. A time such as 365d turns "
        "it off.",
    )
    evaluate_every: Interval | None = Field(
        None, description="How often the model is evaluated within an epoch. Left out: at the end of epochs only."
    )
    checkpoint_every: Interval = Field(
        IntervalConfig(minutes=10),
        description="How often a checkpoint is written within an epoch. A time such as 365d turns it off.",
    )
    early_stop: EarlyStopConfig | None = Field(
        None, description="When the run ends early: {patience: 5}. Left out: it takes its whole length."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="The number that all randomness derives from.")
    workers: WorkersConfig = Field(default_factory=WorkersConfig, description="What the training runs on.")
    tracking: TrackingConfig = Field(
        default_factory=TrackingConfig, description="Whether and where the run is tracked."
    )
    output_dir: str = Field(
        "outputs",
        min_length=1,
        description="The folder of the runs, which go to DIR/NAME/NUMBER. Relative to $ACTIVELR_HOME, else to the "
        "current folder.",
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

    @field_validator("data")
    @classmethod
    def without_pretrained_weights_images_have_one_size(cls, data: DataConfig, info: ValidationInfo) -> DataConfig:
        is_random = "model" in info.data and not source_of_weights(info.data["model"])
        if isinstance(data, ImagesConfig) and data.image_size is None and is_random:
            return data.model_copy(update={"image_size": IMAGE_SIZE})
        return data

    @field_validator("budget")
    @classmethod
    def not_beside_epochs(cls, budget: BudgetConfig | None, info: ValidationInfo) -> BudgetConfig | None:
        if budget is not None and info.data.get("epochs") is not None:
            raise ValueError(f"give epochs or budget, not both, got epochs: {info.data['epochs']} as well")
        return budget

    @model_validator(mode="after")
    def has_a_duration(self) -> Self:
        if self.epochs is None and self.budget is None:
            raise ValueError("epochs: is required, or budget: {time: 2h} or {steps: 10000} in its place")
        return self

    @property
    def duration(self) -> Duration:
        """How long the run is: what ``epochs`` or ``budget`` say."""
        return Duration.of(self.epochs, self.budget)

    def lasting(self, duration: Duration) -> Self:
        """This job with another duration."""
        return self.model_copy(update=duration.keys())


class ResolvedJob(TrainJob):
    """A job with every derived value filled in, except for a batch size that the workers are to find.

    :func:`~activelr_service.service.resolve.resolve_job` makes it; the file ``resolved.yaml`` of a run holds it.
    """

    task: str = Field(description="What is learned.")
    workers: ResolvedWorkersConfig = Field(description="Ray Train workers.")
    tracking: TrackingConfig = Field(description="Where the run is tracked. It has a URI unless nothing is tracked.")

    def complete(self, global_batch_size: int, grad_accum_steps: int) -> "CompleteJob":
        """This job with its batch size."""
        sizes = {"global_batch_size": global_batch_size, "grad_accum_steps": grad_accum_steps}
        return CompleteJob(**{**dict(self), **sizes})


class CompleteJob(ResolvedJob):
    """A resolved job whose batch size is known: this is what is trained."""

    global_batch_size: int = Field(ge=1, le=LARGEST_BATCH, description="Samples per optimizer step, over all workers.")
    grad_accum_steps: int = Field(1, ge=1, le=4096, description="Micro-batches per optimizer step.")

    def micro_batch_size(self) -> int:
        """Samples per worker and forward pass."""
        return self.global_batch_size // (self.workers.num_workers * self.grad_accum_steps)
