"""A folder with a model is data: code in it never runs, whatever the job, the folder or a shared model's recipe asks for."""

import json

import pytest
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification, ViTImageProcessor

from activelr_service.config.model import CausalLMModelConfig, TransformersImageModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.models import causal_lm, transformers_image

CODE = """
from pathlib import Path
Path(__file__).with_name("ran").write_text("")
from transformers import GPT2Config, GPT2LMHeadModel
class Config(GPT2Config):
    model_type = "own"
class Model(GPT2LMHeadModel):
    config_class = Config
"""
INFO = DataInfo(num_train=8, num_val=8, input_shape=(16,), vocab_size=300, tasks=("language_modeling",))


@pytest.fixture(params=["gpt2", "own"])
def folder(request, tmp_path):
    """A saved model with code of its own, whose type transformers has itself or has not."""
    path = tmp_path / "shared"
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=300, n_positions=64)).save_pretrained(path)
    (path / "own.py").write_text(CODE)
    fields = json.loads((path / "config.json").read_text())
    fields |= {
        "model_type": request.param,
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (path / "config.json").write_text(json.dumps(fields))
    return path


def ran(folder):
    return (folder / "ran").exists() or list(folder.rglob("__pycache__"))


def test_a_folder_is_read_without_its_code_or_refused(folder):
    config = CausalLMModelConfig(path=str(folder))
    if json.loads((folder / "config.json").read_text())["model_type"] == "own":
        with pytest.raises(JobError, match=r"model\.path: .* it needs code that comes with it, which is not run"):
            causal_lm.build(config, INFO, None)
    else:
        assert type(causal_lm.build(config, INFO, None)) is GPT2LMHeadModel
        assert "auto_map" not in causal_lm.exported_config(config).config
    assert not ran(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"trust_remote_code": True},
        {"auto_map": {"AutoConfig": "own.Config"}},
        {"text_config": {"auto_map": {"AutoConfig": "own.Config"}}},
        {"code_revision": "main"},
        {"attn_implementation": "somebody/kernel"},
    ],
    ids=lambda config: next(iter(config)),
)
def test_a_job_and_a_recipe_that_ask_for_code_are_refused_by_name(folder, config):
    with pytest.raises(ValidationError, match="code that comes with a model is not run"):
        CausalLMModelConfig(path=str(folder), config=config)
    model = {"type": "causal_lm", "path": str(folder), "config": config}
    recipe = {"model": model, "task": "language_modeling", "data": INFO._asdict()}
    (folder / RECIPE).write_text(json.dumps(recipe))
    with pytest.raises(ValidationError, match="code that comes with a model is not run"):
        load_model(folder)
    assert not ran(folder)


@pytest.mark.parametrize("kind", ["vit", "own"])
def test_a_folder_with_an_image_classifier_and_its_processor_is_read_without_their_code_or_refused(tmp_path, kind):
    fields = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ViTForImageClassification(fields).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text(CODE)
    for name, own in (
        ("config.json", {"model_type": kind, "auto_map": {"AutoModelForImageClassification": "own.Model"}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "own.Model"}}),
    ):
        (tmp_path / name).write_text(json.dumps({**json.loads((tmp_path / name).read_text()), **own}))
    config = TransformersImageModelConfig(path=str(tmp_path))
    images = DataInfo(("classification",), 8, 8, (3, 32, 32), num_classes=2)
    assert transformers_image.fetch_weights(config).values["image_size"] == 32
    if kind == "own":
        with pytest.raises(JobError, match=r"model\.path: transformers cannot build"):
            transformers_image.build(config, images, 2)
    else:
        module = transformers_image.build(config, images, 2)
        transformers_image.load_weights(module, config)
        assert type(module.model) is ViTForImageClassification
        assert "auto_map" not in transformers_image.exported(config).config
    assert not ran(tmp_path)
