"""Pretrained starts: the weights of a file are those that are trained on, and what does not fit is refused or said."""

import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, ViTImageProcessor

from activelr_service.config import dump_job, parse_job
from activelr_service.config.model import TimmModelConfig
from activelr_service.config.yaml_file import parse_yaml
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError, MissingPackageError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.models import build_model, check_model, fetch_weights, find_fit, load_pretrained
from activelr_service.models.torchvision_models import TORCHVISION_NAMES
from activelr_service.service.check import with_absolute_paths
from activelr_service.service.prepare import prepare
from activelr_service.service.start import suit_images
from activelr_service.training.build import check_forward
from tests.conftest import export_model, small_job
from tests.data.generate_images import write_images
from tests.training.test_loop import resolved, train

CLASSES = ("ant", "bee", "cat")
INFO = DataInfo(("classification", "regression"), 20, 5, (3, 32, 32), num_classes=3, classes=CLASSES, num_outputs=2)
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
NO_NET = "http://127.0.0.1:9"  # a port of this machine on which nothing listens


def job_with(model, root="x", **data):
    data = {"type": "imagefolder", "root": str(root), **data}
    base = {"kind": "train", "name": "x", "epochs": 1, "task": "classification", "tracking": {"backend": "none"}}
    return parse_job({**base, "model": model, "data": data})


def started(model, info=INFO, task="classification"):
    """The module as the training begins, and which weights fit, which is also known before it."""
    config = job_with(model).model
    module = build_model(config, info, task)
    with torch.device("meta"):
        shapes = build_model(config, info, task)
    before = find_fit(config, shapes)
    fit = load_pretrained(config, module)
    assert fit == before
    return module, fit


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files as torchvision, timm and transformers write them, and the modules that they were written from."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("files")
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), folder / "resnet18.pth")
    save_file(resnet.state_dict(), folder / "resnet18.safetensors")
    vit = timm.create_model("test_vit", pretrained=False)
    torch.save(vit.state_dict(), folder / "test_vit.pth")
    modules = {"resnet18": resnet, "test_vit": vit}
    for name, fields in (("vit", VIT), ("resnet", RESNET)):
        config = AutoConfig.for_model(name, num_labels=11, **fields)
        modules[name] = AutoModelForImageClassification.from_config(config)
        modules[name].save_pretrained(folder / name)
        AutoModel.from_config(config).save_pretrained(folder / f"{name}_base")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    return folder, modules


@pytest.fixture
def no_net(monkeypatch, tmp_path):
    """No server can be reached, and the caches of the libraries are empty folders, which are returned."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_NET)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # the first call keeps the proxies for the whole process
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))  # what $HF_HOME sets when it is imported
    return tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "hub"


def into_hub(cache, repository, *files):
    """Put files into the cache as huggingface_hub lays it out."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in files:
        shutil.copy(file, snapshot)
    return snapshot


@pytest.mark.parametrize(
    ("model", "source", "head"),
    [
        ({"type": "torchvision", "name": "resnet18", "weights": "resnet18.pth"}, "resnet18", "fc."),
        ({"type": "torchvision", "name": "resnet18", "weights": "resnet18.safetensors"}, "resnet18", "fc."),
        ({"type": "timm", "name": "test_vit", "pretrained": "test_vit.pth"}, "test_vit", "head."),
        ({"type": "transformers_image", "path": "vit"}, "vit", "classifier."),
        ({"type": "transformers_image", "path": "resnet"}, "resnet", "classifier."),
    ],
    ids=["torchvision", "safetensors", "timm", "transformers-vit", "transformers-resnet"],
)
def test_all_weights_but_the_head_are_those_of_the_file_and_an_export_needs_no_file(
    files, tmp_path, monkeypatch, model, source, head
):
    folder, modules = files
    monkeypatch.chdir(folder)
    side = 160 if model["type"] == "timm" else 32
    info = INFO._replace(input_shape=(3, side, side))
    module, fit = started(model, info)
    saved = {name: tensor for name, tensor in modules[source].state_dict().items() if not name.startswith(head)}
    mine = {name.removeprefix("model."): tensor for name, tensor in module.state_dict().items()}
    assert all(torch.equal(mine[name], tensor) for name, tensor in saved.items())
    assert all(name.startswith(head) for name in fit.head)
    assert len(fit.head) == 2
    assert not fit.warnings("file")
    config = job_with(model).model
    export_model(tmp_path / "model", module, config, info, "classification")
    recipe = (tmp_path / "model" / RECIPE).read_text()
    assert json.loads(recipe)["task"] == "classification"
    assert str(folder) not in recipe
    monkeypatch.chdir(tmp_path)  # the files are not here
    images = torch.randn(2, 3, side, side)
    assert torch.equal(load_model(tmp_path / "model")(images), module.eval()(images))


def test_the_head_is_drawn_from_the_seed_and_a_regression_has_one_output_for_each_target(files):
    model = {"type": "transformers_image", "path": str(files[0] / "vit")}
    heads = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        heads.append(started(model)[0].model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    for kind in (model, {"type": "timm", "name": "test_resnet"}):
        side = INFO._replace(input_shape=(3, 64, 64)) if kind["type"] == "timm" else INFO
        module, _ = started(kind, side, "regression")
        assert module.eval()(torch.zeros(1, *side.input_shape)).shape == (1, 2)


def test_a_folder_without_a_head_gives_all_the_rest(files):
    _, fit = started({"type": "transformers_image", "path": str(files[0] / "vit_base")})
    assert set(fit.head) == {"classifier.weight", "classifier.bias"}
    assert not fit.missing


def test_the_classes_of_a_folder_that_have_the_names_of_the_data_are_matched_by_name(tmp_path):
    names = {0: "dog", 1: "ant", 2: "cat"}
    config = AutoConfig.for_model("vit", id2label=names, label2id={name: row for row, name in names.items()}, **VIT)
    saved = AutoModelForImageClassification.from_config(config)
    saved.save_pretrained(tmp_path)
    info = INFO._replace(num_classes=3, classes=("ant", "cat", "dog"))
    module, fit = started({"type": "transformers_image", "path": str(tmp_path)}, info)
    assert not fit.head
    assert torch.equal(module.model.classifier.weight, saved.classifier.weight[[1, 2, 0]])
    assert torch.equal(module.model.vit.layernorm.weight, saved.vit.layernorm.weight)


def test_files_of_training_programs_are_read(files, tmp_path):
    weights = torch.load(files[0] / "resnet18.pth")
    checkpoint = {"state_dict": {f"module.{name}": value for name, value in weights.items()}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    module, fit = started({"type": "torchvision", "name": "resnet18", "weights": str(tmp_path / "checkpoint.pth")})
    assert not fit.warnings("file")
    assert torch.equal(module.conv1.weight, weights["conv1.weight"])


def test_names_that_do_not_fit_are_listed_and_start_from_random_weights(files, tmp_path):
    weights = torch.load(files[0] / "resnet18.pth")
    weights["layer9.conv1.weight"] = weights.pop("layer4.1.conv1.weight")
    weights["bn1.weight"] = torch.ones(3)
    weights["layer1.0.conv1.weight"] = torch.full_like(weights["layer1.0.conv1.weight"], torch.nan)
    torch.save(weights, tmp_path / "odd.pth")
    model = {"type": "torchvision", "name": "resnet18", "weights": str(tmp_path / "odd.pth")}
    module, fit = started(model)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert fit.warnings("odd.pth") == [
        "not in odd.pth, so that they start from random weights (1 tensors): layer4.1.conv1.weight",
        "in another shape in odd.pth, or NaN, so that they start from random weights (2 tensors): "
        "bn1.weight, layer1.0.conv1.weight",
        "only in odd.pth, and left out (1 tensors): layer9.conv1.weight",
    ]


def check_start(job):
    """What is checked of a model before a training starts, in this order."""
    fetch_weights(job.model)
    check_model(job, INFO, "classification")
    check_forward(job, INFO)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            {"type": "torchvision", "name": "resnet50", "weights": "resnet18.pth"},
            r"model\.weights: resnet18\.pth does not fit torchvision's resnet50: 188 of 265 tensors are missing",
        ),
        (
            {"type": "timm", "name": "test_resnet", "pretrained": "test_vit.pth"},
            r"model\.pretrained: test_vit\.pth does not fit timm's test_resnet: .*, and the file has cls_token",
        ),
        ({"type": "torchvision", "name": "resnet18", "weights": "bad.pth"}, r"bad\.pth cannot be read as weights: .*"),
        (
            {"type": "torchvision", "name": "resnet18", "weights": "no.pth"},
            r"no such file: no\.pth; DEFAULT stands for",
        ),
        ({"type": "timm", "name": "test_vit", "pretrained": "no.pth"}, r"no such file: no\.pth; true stands for"),
        ({"type": "transformers_image", "path": "./no"}, r"model\.path: no such file: no/config\.json"),
        (
            {"type": "torchvision", "name": "resnet18", "weights": "IMAGENET1K_V3"},
            r"model\.weights: torchvision has no weights 'IMAGENET1K_V3' of resnet18; did you mean \"IMAGENET1K_V1\"",
        ),
        ({"type": "torchvision", "name": "resnet8", "weights": "DEFAULT"}, r'model\.name: .*did you mean "resnet18"'),
        ({"type": "timm", "name": "test_vti"}, r'model\.name: timm has no model .*did you mean "test_vit'),
        ({"type": "timm", "name": "test_vit.r1", "pretrained": True}, r"model\.name: timm has no weights 'r1' of test"),
        ({"type": "timm", "name": "test_vit", "args": {"depht": 2}}, r"model\.args: test_vit: .*depht"),
        ({"type": "timm", "name": "test_vit", "args": {"num_classes": 2}}, r"model\.args\.num_classes: is set from"),
        ({"type": "transformers_image", "name": "vti"}, r"model\.name: transformers cannot build 'vti'"),
        (
            {"type": "transformers_image", "name": "vit", "config": {"num_labels": 2}},
            r"model\.config\.num_labels: it is",
        ),
        ({"type": "transformers_image", "name": "gpt2"}, r"model\.name: transformers cannot build 'gpt2'"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_cannot_start_is_refused_in_one_line(files, tmp_path, monkeypatch, model, expected):
    for name in ("resnet18.pth", "test_vit.pth"):
        os.link(files[0] / name, tmp_path / name)
    (tmp_path / "bad.pth").write_bytes(b"bad")
    monkeypatch.chdir(tmp_path)
    job = job_with(model)
    with pytest.raises(JobError, match=expected) as caught:
        check_start(job)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            {"type": "torchvision", "name": "resnet18", "weights": "DEFAULT"},
            r"model\.weights: https://download.pytorch.org/models/(resnet18-f37072fd\.pth) is not on this machine and "
            r"cannot be downloaded \(.*\); give the path of a local file, or put the file \1 into .*checkpoints$",
        ),
        (
            {"type": "timm", "name": "test_resnet.r160_in1k", "pretrained": True},
            r"model\.pretrained: timm/test_resnet\.r160_in1k is not on this machine and cannot be downloaded "
            r".*; give the path of a local file, or put it into the cache .*hub",
        ),
        (
            {"type": "transformers_image", "path": "google/vit-base-patch16-224"},
            r"model\.path: google/vit-base-patch16-224 is not on this machine .*give the path of a local folder",
        ),
    ],
    ids=["torchvision", "timm", "transformers"],
)
def test_without_a_net_a_name_is_refused_in_seconds_with_the_remedy(no_net, tmp_path, model, expected):
    write_images(tmp_path / "images")
    start = time.monotonic()
    with pytest.raises(JobError, match=expected) as caught:
        prepare(job_with(model, tmp_path / "images"))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 15


def test_what_was_downloaded_once_is_found_without_a_net(no_net, files):
    folder, modules = files
    torch_cache, hub_cache = no_net
    torch_cache.mkdir(parents=True)
    shutil.copy(folder / "resnet18.pth", torch_cache / "resnet18-f37072fd.pth")
    for name in ("DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):
        module, _ = started({"type": "torchvision", "name": "resnet18", "weights": name})
    assert torch.equal(module.conv1.weight, modules["resnet18"].conv1.weight)

    vit = timm.create_model("test_vit", pretrained=False)
    save_file(vit.state_dict(), folder / "model.safetensors")
    into_hub(hub_cache, "timm/test_vit.r160_in1k", folder / "model.safetensors")
    for side in (160, 192):  # timm interpolates the position embedding
        module, fit = started(
            {"type": "timm", "name": "test_vit", "pretrained": True}, INFO._replace(input_shape=(3, side, side))
        )
        assert set(fit.head) == {"head.weight", "head.bias"}
        assert not fit.warnings("file")
        assert torch.equal(module.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)

    names = ("config.json", "model.safetensors", "preprocessor_config.json")
    into_hub(hub_cache, "lab/vit", *(folder / "vit" / name for name in names))
    config = job_with({"type": "transformers_image", "path": "lab/vit"})
    assert with_absolute_paths(config).model.path == "lab/vit"
    assert fetch_weights(config.model).values["image_size"] == 32
    module, _ = started({"type": "transformers_image", "path": "lab/vit"})
    assert torch.equal(module.model.vit.embeddings.cls_token, modules["vit"].vit.embeddings.cls_token)


def test_published_formats_of_torchvision_are_converted(tmp_path):
    densenet = torchvision.models.densenet121(weights=None).state_dict()
    older = {name.replace("norm1", "norm.1").replace("conv2", "conv.2"): value for name, value in densenet.items()}
    assert older.keys() != densenet.keys()
    torch.save(older, tmp_path / "densenet.pth")
    _, fit = started({"type": "torchvision", "name": "densenet121", "weights": str(tmp_path / "densenet.pth")})
    assert not fit.warnings("file")


@pytest.mark.slow
def test_a_vision_transformer_of_torchvision_takes_images_of_another_size(tmp_path):
    torch.save(torchvision.models.vit_b_32(weights=None).state_dict(), tmp_path / "vit.pth")
    model = {"type": "torchvision", "name": "vit_b_32", "weights": str(tmp_path / "vit.pth")}
    module, fit = started(model, INFO._replace(input_shape=(3, 64, 64)))
    assert module.encoder.pos_embedding.shape == (1, 5, 768)
    assert not fit.warnings("file")


def test_a_vision_transformer_of_transformers_takes_images_of_another_size(files, tmp_path):
    info = INFO._replace(input_shape=(3, 64, 64))
    model = {"type": "transformers_image", "path": str(files[0] / "vit")}
    module, _ = started(model, info)
    check_forward(job_with(model), info)
    export_model(tmp_path, module, job_with(model).model, info, "classification")
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(load_model(tmp_path)(images), module.eval()(images))
    check_forward(job_with({**model, "path": None, "name": "vit", "config": {**VIT, "image_size": 64}}), info)
    small = {name: value for name, value in VIT.items() if name != "image_size"}
    check_forward(job_with({"type": "transformers_image", "name": "vit", "config": small}), info)


def test_models_ported_from_tensorflow_scale_their_inputs_as_their_weights_want_it(files, tmp_path):
    model = {"type": "torchvision", "name": "googlenet"}
    reference = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(reference.state_dict(), tmp_path / "googlenet.pth")
    config = job_with({**model, "weights": str(tmp_path / "googlenet.pth")}).model
    module, fit = started(config.model_dump())
    assert module.transform_input
    assert all(name.startswith("aux") for name in fit.left_over)
    export_model(tmp_path, module, config, INFO, "classification")
    assert load_model(tmp_path).transform_input


def test_a_job_keeps_the_size_that_it_gives_and_a_job_without_weights_has_its_224_pixels(files):
    pretrained = {"type": "transformers_image", "path": str(files[0] / "vit")}
    job, said = suit_images(job_with(pretrained, mean=[0.1, 0.2, 0.3]))
    assert (job.data.image_size, job.data.squash, job.data.mean) == (32, True, [0.1, 0.2, 0.3])
    assert "data.image_size = 32  (of the image processor of " in "\n".join(map(str, said.choices))
    assert "data.mean" not in "\n".join(map(str, said.choices))
    assert suit_images(job_with(pretrained, image_size=64))[0].data.image_size == 64
    plain = job_with({"type": "torchvision", "name": "resnet18"})
    assert plain.data.image_size == 224
    assert suit_images(plain)[0] == plain
    unresolved = job_with(pretrained)
    assert parse_job(parse_yaml(dump_job(unresolved), "job").data) == unresolved  # the job that a run keeps


def test_data_that_scale_their_own_images_are_said_to_differ(files):
    job = job_with({"type": "transformers_image", "path": str(files[0] / "vit")})
    digits = parse_job({**job.model_dump(exclude_none=True), "data": {"type": "digits"}})
    suited, said = suit_images(digits)
    assert suited == digits
    (warning,) = said.warnings
    assert "made with images of side 32, mean [0.5, 0.5, 0.5]" in warning
    assert "data of type digits have a size and a scale of their own" in warning


def test_few_images_and_random_weights_get_a_hint(tmp_path):
    write_images(tmp_path)
    hint = "11 images teach little to a model from random weights; model.weights: DEFAULT starts from pretrained ones"
    job = job_with({"type": "torchvision", "name": "squeezenet1_1"}, tmp_path).model_copy(
        update={"output_dir": str(tmp_path / "out")}
    )
    assert hint in prepare(job).info.warnings


def test_every_type_of_head_is_found():
    for name in ("alexnet", "squeezenet1_1", "mobilenet_v3_small", "swin_t", "regnet_x_400mf", "vgg11"):
        assert name in TORCHVISION_NAMES
        job = job_with({"type": "torchvision", "name": name})
        check_forward(job, INFO._replace(input_shape=(3, 64, 64)))


def test_paths_are_made_absolute_and_names_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = {
        "DEFAULT": {"type": "torchvision", "name": "resnet18", "weights": "DEFAULT"},
        str(tmp_path / "a.pth"): {"type": "torchvision", "name": "resnet18", "weights": "a.pth"},
        str(tmp_path / "b.pth"): {"type": "timm", "name": "test_vit", "pretrained": "b.pth"},
        str(tmp_path / "x" / "y"): {"type": "transformers_image", "path": "./x/y"},
        "x/y": {"type": "transformers_image", "path": "x/y"},
    }
    for expected, model in cases.items():
        found = with_absolute_paths(job_with(model)).model
        assert expected in (getattr(found, key, None) for key in ("weights", "pretrained", "path"))
    Path("x/y").mkdir(parents=True)
    assert with_absolute_paths(job_with(cases["x/y"])).model.path == str(tmp_path / "x" / "y")


def test_without_timm_the_extra_is_named(tmp_path, monkeypatch):
    config = TimmModelConfig(name="test_resnet")
    export_model(tmp_path, build_model(config, INFO, "classification"), config, INFO, "classification")
    monkeypatch.setitem(sys.modules, "timm", None)  # what Python finds where it is not installed
    with pytest.raises(
        MissingPackageError, match=r"`activelr_service\.load_model` needs timm, .*activelr-service\[timm\]"
    ):
        load_model(tmp_path)


def test_a_finished_run_is_measured_without_the_file_that_it_started_from(tmp_path):
    gone = {"type": "torchvision", "name": "resnet18", "weights": str(tmp_path / "gone.pth")}
    check_model(job_with(gone), INFO, "classification")


@pytest.mark.slow
def test_an_epoch_from_trained_weights_has_a_lower_training_loss_than_one_from_random_weights(tmp_path):
    model = {"type": "timm", "name": "test_resnet"}
    quick = {"global_batch_size": 128, "tracking": {"backend": "none"}}
    trained, _ = train(resolved(small_job(tmp_path, model=model, epochs=4, **quick)), tmp_path / "before")
    torch.save(trained.model.state_dict(), tmp_path / "trained.pth")
    losses = []
    for number, weights in enumerate((False, str(tmp_path / "trained.pth"))):
        job = small_job(tmp_path, model={**model, "pretrained": weights}, epochs=1, **quick)
        _, history = train(resolved(job), tmp_path / str(number))
        losses.append(history[-1].metrics["train/loss"])
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"type": "torchvision", "name": "squeezenet1_1"},
        {"type": "timm", "name": "test_vit", "freeze": ["blocks.0"]},
        {"type": "transformers_image", "name": "vit", "config": VIT},
    ],
    ids=lambda model: model["type"],
)
def test_bfloat16_and_channels_last_are_plain_options_of_these_models(tmp_path, model):
    options = {"precision": "bfloat16", "channels_last": True, "global_batch_size": 512, "epochs": 1}
    job = resolved(small_job(tmp_path, model=model, data={"type": "digits", "image_size": 32}, **options))
    _, history = train(job, tmp_path / "run")
    assert history[-1].metrics["train/loss"] > 0


def test_an_exported_model_is_a_start_whose_images_are_those_that_it_was_trained_on(tmp_path):
    model = {"type": "torchvision", "name": "squeezenet1_1"}
    config = job_with(model).model
    export_model(tmp_path, build_model(config, INFO, "classification"), config, INFO, "classification")
    recipe = json.loads((tmp_path / RECIPE).read_text())
    recipe["inputs"] = {"type": "imagefolder", "image_size": 96, "mean": [0.5, 0.5, 0.5], "std": None}
    (tmp_path / RECIPE).write_text(json.dumps(recipe))
    job, said = suit_images(job_with({**model, "weights": str(tmp_path / "model.safetensors")}))
    assert (job.data.image_size, job.data.mean, job.data.std, job.data.squash) == (96, [0.5, 0.5, 0.5], None, None)
    assert "data.image_size = 96  (as the model in " in str(said.choices[0])
    _, fit = started({**model, "weights": str(tmp_path / "model.safetensors")})
    assert fit.describe() == "52 of 52 tensors are taken over; the head is among them"
