"""Models: built as their owners build them, and refused before anything starts where they do not fit."""

import json
import pickle
from typing import get_args

import pytest
import torch
import torchvision

from activelr_service.config import parse_job
from activelr_service.config.model import MLPModelConfig, ModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import RECIPE, WEIGHTS, load_model, sha256_of
from activelr_service.models import MODEL_TYPES, build_model, check_model
from activelr_service.models.torchvision_models import TORCHVISION_DETECTION_NAMES, TORCHVISION_NAMES
from activelr_service.service.check import check_job
from activelr_service.training.build import check_forward
from tests.conftest import export_model
from tests.data.test_data import install_entry_points

IMAGES = DataInfo(("classification",), 10, 10, (3, 32, 32), num_classes=10)
TOKENS = DataInfo(("language_modeling",), 10, 10, (16,), vocab_size=50)
GPT2 = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 32}}
RESNET = {"type": "torchvision", "name": "resnet18"}


def job_with(model, **changes):
    base = {"kind": "train", "name": "x", "epochs": 1, "data": {"type": "digits"}, "task": "classification"}
    return parse_job({**base, "model": model, **changes})


def test_the_known_names_are_those_of_the_installed_torchvision():
    assert sorted(TORCHVISION_NAMES) == torchvision.models.list_models(module=torchvision.models)
    detectors = torchvision.models.list_models(module=torchvision.models.detection)
    assert sorted(TORCHVISION_DETECTION_NAMES) == [n for n in detectors if not n.startswith(("mask", "keypoint"))]


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "mobilenet_v3_small", "googlenet"])
def test_torchvision_models_get_the_classes_of_the_data(name):
    job = job_with({"type": "torchvision", "name": name})
    check_forward(job, IMAGES)
    with torch.device("meta"):
        model = build_model(job.model, IMAGES, "classification")
    reference = torchvision.models.get_model(name, weights=None)
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in reference.parameters())


def test_a_causal_lm_is_built_from_its_config_alone():
    job = job_with(GPT2, task="language_modeling")
    check_forward(job, TOKENS)
    model = build_model(job.model, TOKENS, "language_modeling")
    assert model(input_ids=torch.zeros(1, 16, dtype=torch.long)).logits.shape == (1, 16, 50)


@pytest.mark.parametrize(
    ("model", "info", "task", "expected"),
    [
        (
            {"type": "torchvision", "name": "resnet8"},
            IMAGES,
            "classification",
            r'model\.name: .*did you mean "resnet18"',
        ),
        (GPT2, IMAGES, "classification", r"model\.type: 'causal_lm' does not suit the task 'classification'"),
        ({"type": "mlp"}, TOKENS, "language_modeling", r"model\.type: 'mlp' does not suit"),
        (
            RESNET,
            IMAGES._replace(input_shape=(12,)),
            "classification",
            r"model\.type: .*\(12,\); use model: \{type: mlp\}",
        ),
        (RESNET, IMAGES._replace(input_shape=(28, 28)), "classification", "height, width\\); repeat the gray channel"),
        (RESNET, IMAGES._replace(input_shape=(1, 28, 28)), "classification", "repeat the gray channel"),
        (RESNET, IMAGES._replace(input_shape=(32, 32, 3)), "classification", r"store x as \(rows, 3, height, width\)"),
        ({**GPT2, "config": {"vocab_size": 9}}, TOKENS, "language_modeling", r"token ids up to 49, got vocab_size 9"),
    ],
)
def test_what_cannot_fit_is_refused_without_torch(model, info, task, expected):
    with pytest.raises(JobError, match=expected):
        check_model(job_with(model), info, task)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (RESNET, (1, 32, 32), r"model: does not take samples of shape \(1, 32, 32\)"),
        (
            {"type": "torchvision", "name": "resnet18", "args": {"depth": 3}},
            (3, 32, 32),
            r"model\.args: resnet18: .*depth",
        ),
        ({"type": "torchvision", "name": "alexnet"}, (3, 16, 16), "model: does not take samples"),
    ],
)
def test_shapes_are_checked_before_anything_starts(model, shape, expected):
    with pytest.raises(JobError, match=expected):
        check_forward(job_with(model), IMAGES._replace(input_shape=shape))


def test_an_unknown_transformers_type_is_refused():
    with pytest.raises(JobError, match=r"model\.name: transformers cannot build 'gpt22'"):
        check_forward(job_with({**GPT2, "name": "gpt22"}, task="language_modeling"), TOKENS)


def test_users_models_come_by_entry_point(tmp_path, monkeypatch):
    install_entry_points(tmp_path, monkeypatch)
    job = job_with({"type": "python", "name": "net", "args": {"width": 3}}, data={"type": "python", "name": "squares"})
    assert build_model(job.model, IMAGES, "classification").out_features == 3
    with pytest.raises(JobError, match=r"model\.args: net: .*height"):
        build_model(job.model.model_copy(update={"args": {"height": 3}}), IMAGES, "classification")


def test_an_exported_model_is_built_again_with_the_same_outputs(tmp_path):
    job = job_with(GPT2)
    model = build_model(job.model, TOKENS, "language_modeling").eval()  # its input and output embeddings are tied
    export_model(tmp_path / "exported", model, job.model, TOKENS, "language_modeling")
    tokens = torch.randint(0, 50, (2, 16))
    loaded = load_model(tmp_path / "exported")
    assert torch.equal(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits)
    assert loaded.task == "language_modeling"
    with pytest.raises(FileNotFoundError, match="no exported model"):
        load_model(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("weights", "recipe"),
    [
        (b"", {}),
        ((2**60).to_bytes(8, "little") + b"{}", {}),
        (pickle.dumps({"a": 1}), {}),
        (None, {"model": {"type": "mlp", "hidden": [3]}}),
        (None, {"model": {"type": "causal_lm", "path": "/"}}),
        (None, {"data": None}),
    ],
    ids=["empty", "huge-header", "pickle", "other-shapes", "a-folder-elsewhere", "no-data"],
)
def test_an_exported_model_that_is_damaged_is_refused_in_one_line(tmp_path, weights, recipe):
    config, info = MLPModelConfig(hidden=[2]), IMAGES._replace(input_shape=(4,))
    export_model(tmp_path, build_model(config, info, "classification"), config, info, "classification")
    if weights is not None:
        (tmp_path / WEIGHTS).write_bytes(weights)
    written = json.loads((tmp_path / RECIPE).read_text())
    (tmp_path / RECIPE).write_text(json.dumps({**written, "sha256": sha256_of(tmp_path / WEIGHTS), **recipe}))
    with pytest.raises(ValueError, match="is damaged or not of this package; export it again") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        load_model(tmp_path)


def test_the_quickstart_fits_its_data():
    info, task = check_job(job_with({"type": "torchvision", "name": "resnet18"}, task=None))
    assert (info.num_classes, task) == (10, "classification")


def test_the_cifar_stem_keeps_the_resolution_and_suits_resnets_only():
    stem = {"type": "torchvision", "stem": "cifar"}
    with torch.device("meta"):
        model = build_model(job_with({**stem, "name": "resnet34"}).model, IMAGES, "classification")
        assert model.maxpool(model.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(JobError, match=r"model\.stem: only ResNets have a stem for small images, got 'vgg11'"):
        check_model(job_with({**stem, "name": "vgg11"}), IMAGES, "classification")


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_689_512), ("resnet34", 21_797_672)])
def test_a_resnet_has_the_parameters_of_torchvisions(name, count):
    with torch.device("meta"):
        model = build_model(
            job_with({"type": "torchvision", "name": name}).model, IMAGES._replace(num_classes=1000), "classification"
        )
    assert sum(param.numel() for param in model.parameters()) == count


def test_every_type_of_model_that_a_job_can_name_is_implemented():
    union, _ = get_args(ModelConfig)
    assert {config.model_fields["type"].default for config in get_args(union)} == set(MODEL_TYPES)
