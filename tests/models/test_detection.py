"""Detectors: built for the data's classes without a download, and with a backbone from a local file."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from activelr_service.config import parse_job
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models import build_model, check_model, load_pretrained
from activelr_service.service.check import with_absolute_paths
from activelr_service.training.build import check_forward

pytestmark = pytest.mark.slow

INFO = DataInfo(("detection",), 8, 4, (), num_classes=20)


def job_with(task="detection", **model):
    model = {"type": "torchvision_detection", **model}
    base = {"kind": "train", "name": "x", "epochs": 1, "data": {"type": "voc", "root": "x"}}
    return parse_job({**base, "model": model, "task": task})


def built(config):
    model = build_model(config, INFO, "detection")
    load_pretrained(config, model)
    return model


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
    """A resnet50 and the two files it may be in."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("weights")
    weights = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(weights, folder / "resnet50.pth")
    save_file(weights, folder / "resnet50.safetensors")
    return weights, folder


def test_a_detector_has_the_classes_of_the_data_and_the_background():
    job = job_with(name="fasterrcnn_mobilenet_v3_large_320_fpn", args={"min_size": 64, "max_size": 96})
    check_model(job, INFO, "detection")
    check_forward(job, INFO)
    model = built(job.model)
    assert model.roi_heads.box_predictor.cls_score.out_features == 21
    assert (model.transform.min_size, model.transform.max_size) == ((64,), 96)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_backbone_from_a_file_is_loaded_and_frozen_as_in_torchvision(resnet50, suffix):
    weights, folder = resnet50
    config = job_with(backbone_weights=str(folder / f"resnet50.{suffix}")).model
    model = built(config)
    body = model.backbone.body
    for name, tensor in body.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    trained = {name.split(".")[0] for name, parameter in body.named_parameters() if parameter.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = torchvision.models.resnet50(weights=None)
        expected.load_state_dict(weights)
        expected.fc = torch.nn.Identity()
        features = body.train()(images)["3"].mean((2, 3))
    torch.testing.assert_close(features, expected.eval()(images), rtol=1e-3, atol=1e-4)


def test_the_number_of_trained_layers_and_the_norms_of_v2_follow_torchvision(resnet50):
    path = str(resnet50[1] / "resnet50.safetensors")
    config = job_with(backbone_weights=path, args={"trainable_backbone_layers": 5}).model
    assert all(parameter.requires_grad for parameter in built(config).parameters())
    config = job_with(name="fasterrcnn_resnet50_fpn_v2", backbone_weights=path).model
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in built(config).backbone.body.modules())


def test_weights_that_are_not_a_resnet50_are_named(tmp_path):
    model = job_with().model
    other = torchvision.models.resnet18(weights=None).state_dict()
    renamed = {f"net.{name}": tensor for name, tensor in other.items()}
    cases = [
        (other, r"size mismatch for layer1\.0\.conv1\.weight"),
        (renamed, r"weights are missing and 122 are others, such as conv1\.weight"),
        ([1, 2], "it holds a list"),
        (torch.nn.Linear(1, 1), "cannot be read as weights: Weights only load failed"),
    ]
    for content, expected in cases:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        config = model.model_copy(update={"backbone_weights": str(path)})
        with pytest.raises(JobError, match=rf"model\.backbone_weights: {path} .*{expected}") as caught:
            built(config)
        assert "\n" not in str(caught.value)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"broken")
    with pytest.raises(JobError, match="cannot be read as weights"):
        built(model.model_copy(update={"backbone_weights": str(path)}))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "fasterrcnn_resnet50"}, r'model\.name: .*did you mean "fasterrcnn_resnet50_fpn"'),
        ({"name": "maskrcnn_resnet50_fpn"}, r"model\.name: torchvision has no box detector"),
        ({"backbone_weights": "none.pth"}, r"model\.backbone_weights: no such file: none\.pth"),
        ({"name": "ssd300_vgg16", "backbone_weights": "x"}, r"model\.backbone_weights: ssd300_vgg16 has no resnet50"),
        ({"args": {"trainable_backbone_layers": 3}}, r"model\.args: without model\.backbone_weights all layers"),
        (
            {"backbone_weights": __file__, "args": {"trainable_backbone_layers": 9}},
            r"model\.args: trainable_backbone_layers must be 0 to 5, got 9",
        ),
        ({"task": "classification"}, r"model\.type: 'torchvision_detection' does not suit the task 'classification'"),
    ],
)
def test_what_cannot_train_is_refused_without_torch(model, expected):
    job = job_with(**model)
    with pytest.raises(JobError, match=expected):
        check_model(job, INFO, job.task)


def test_other_models_other_precisions_and_unknown_arguments_are_refused():
    with pytest.raises(JobError, match=r"model\.type: 'mlp' does not suit the task 'detection'"):
        check_model(job_with().model_copy(update={"model": parse_model({"type": "mlp"})}), INFO, "detection")
    with pytest.raises(JobError, match="precision: bfloat16 rounds"):
        check_model(job_with().model_copy(update={"precision": "bfloat16"}), INFO, "detection")
    with pytest.raises(JobError, match=r"model\.args: fasterrcnn_resnet50_fpn has no argument min_sise"):
        check_forward(job_with(args={"min_sise": 64}), INFO)
    with pytest.raises(JobError, match=r"model\.args: .*weights_backbone"):
        check_forward(job_with(args={"weights_backbone": "DEFAULT"}), INFO)


def test_the_path_of_the_weights_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = with_absolute_paths(job_with(backbone_weights="weights.pth")).model
    assert model.backbone_weights == str(tmp_path / "weights.pth")


def parse_model(model):
    job = {"kind": "train", "name": "x", "epochs": 1, "data": {"type": "digits"}, "model": model}
    return parse_job(job).model
