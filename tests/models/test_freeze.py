"""Frozen layers: what is frozen stays to the last bit, statistics included, on one rank and on several."""

import re

import pytest
import timm
import torch
from torch import nn

from activelr_service.data import inspect_data
from activelr_service.errors import JobError
from activelr_service.models import build_model
from activelr_service.models.freeze import freeze
from activelr_service.training.build import build_training, check_forward
from activelr_service.training.checkpoint_files import named_state
from activelr_service.training.loop import run_epoch
from tests.conftest import small_job
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, assert_identical, final_tensors, resolved, train, train_an_epoch

RESNET = {"type": "torchvision", "name": "resnet18", "stem": "cifar"}


def named():
    model = nn.Module()
    model.stem, model.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    model.block = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model.head = nn.Linear(4, 2)
    return model


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        (["block"], {"stem", "norm", "head"}),
        (["block.*", "stem.weight", "stem.bias"], {"norm", "head"}),
        (["*", "!head"], {"head"}),
        (["*", "!head.*", "!block"], {"head", "block"}),
        (["b*"], {"stem", "norm", "head"}),
    ],
)
def test_patterns_are_of_names_and_of_modules_and_may_except(patterns, trained):
    model = named()
    frozen = freeze(model, patterns)
    names = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == trained
    total = sum(parameter.numel() for parameter in model.parameters())
    assert frozen.frozen + frozen.trained == total
    assert f"{frozen.trained:,} are trained" in frozen.describe()


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["blokc.*"], r"model\.freeze: no parameter matches 'blokc\.\*'; did you mean \"block\"\?"),
        (["zzz"], r"no parameter matches 'zzz'; the names begin with stem, norm, block, head"),
        (["*", "!haed"], r"no parameter matches '!haed'; did you mean \"head\"\?"),
        (["*"], r"model\.freeze: nothing is left to train; add '!head\.\*'"),
    ],
)
def test_patterns_that_match_nothing_or_all_are_refused_with_names(patterns, expected):
    with pytest.raises(JobError, match=expected):
        freeze(named(), patterns)


def test_a_wrong_pattern_is_found_before_the_training(tmp_path):
    job = resolved(small_job(tmp_path, model={**RESNET, "freeze": ["layre1"]}))
    with pytest.raises(JobError, match=r'no parameter matches .layre1.; did you mean "layer1"'):
        check_forward(job, inspect_data(job.data))
    job = resolved(small_job(tmp_path, model={**RESNET, "freeze": ["layer1", "conv1"]}))
    assert check_forward(job, inspect_data(job.data)).frozen.frozen == 149_696  # of two blocks of 64 and of the stem


def test_only_norms_that_are_frozen_as_a_whole_keep_their_statistics():
    model = timm.create_model("test_resnet", num_classes=3)
    freeze(model, ["*", "!layer4", "!fc", "!layer1.0.bn1.bias"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()(torch.randn(4, 3, 64, 64))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith(("layer4", "layer1.0.bn1.")) for name in moved)


def test_the_names_of_a_transformers_model_are_its_own(tmp_path):
    config = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 32,
    }
    job = small_job(tmp_path, model={"type": "transformers_image", "name": "vit", "config": config})
    info = inspect_data(job.data)._replace(input_shape=(3, 32, 32))
    model = build_model(job.model, info, "classification")
    freeze(model, ["vit"])
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {
        "model.classifier.weight",
        "model.classifier.bias",
    }


@pytest.mark.slow
def test_a_stopped_training_with_frozen_layers_ends_bit_for_bit_and_they_never_move(tmp_path):
    model = {"type": "timm", "name": "test_resnet", "freeze": ["*", "!layer4", "!fc"]}
    job = resolved(small_job(tmp_path, model=model, epochs=2, global_batch_size=256))
    fresh = {
        name: value.clone()
        for name, value in build_training(job, inspect_data(job.data), CPU).model.state_dict().items()
    }
    whole, _ = train(job, tmp_path / "whole")
    train_an_epoch(job, tmp_path / "stopped")
    train(job, tmp_path / "stopped")
    final = final_tensors(tmp_path / "whole", 2)
    assert_identical(final, final_tensors(tmp_path / "stopped", 2))
    kept = {name for name in fresh if not name.startswith(("layer4", "fc"))}
    assert all(torch.equal(final[f"model.{name}"], fresh[name]) for name in kept)
    assert not torch.equal(final["model.fc.weight"], fresh["fc.weight"])
    assert not [key for key in final if key.startswith("optimizer.") and not re.search(r"\b(layer4|fc)\.", key)]
    assert not any(parameter in whole.optimizer.state for parameter in whole.model.layer1.parameters())


@pytest.mark.slow
def test_ranks_with_frozen_layers_agree(tmp_path):
    first, second = run_ranks(train_frozen_on_rank, 2, tmp_path, tmp_path)
    assert_identical(first, second)


def train_frozen_on_rank(rank, folder):
    model = {"type": "timm", "name": "test_resnet", "freeze": ["*", "!layer4", "!fc"]}
    job = resolved(small_job(folder, model=model, epochs=1, global_batch_size=512), num_workers=2)
    training = build_training(job, inspect_data(job.data), CPU)
    run_epoch(training, 1)
    return {name: value.clone() for name, value in named_state(training.model, training.optimizer).items()}
