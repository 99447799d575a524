"""A folder with a model is data: code in it never runs, whatever the job, the folder or a shared model's recipe asks for."""

import json

import pytest
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from activelr_service.config.model import CausalLMModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.models import causal_lm

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
