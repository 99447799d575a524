"""Causal language models: trained in float32, whatever their folder holds, and without the folder's code."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from activelr_service.config.model import CausalLMModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.models import build_model, load_pretrained
from activelr_service.models.causal_lm import check
from tests.conftest import export_model

TOKENS = DataInfo(("language_modeling",), 10, 10, (16,), vocab_size=50)
SMALL = {
    "gpt2": {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 32},
    "llama": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
}


def saved_folder(path, name, dtype):
    fields = AutoConfig.for_model(name, vocab_size=50, bos_token_id=None, eos_token_id=None, **SMALL[name])
    model = AutoModelForCausalLM.from_config(fields, dtype=dtype)
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_weights_of_any_precision_are_trained_and_exported_in_float32(tmp_path, name, dtype):
    saved = saved_folder(tmp_path / "saved", name, dtype)
    config = CausalLMModelConfig(path=str(tmp_path / "saved"))
    model = build_model(config, TOKENS, "language_modeling")
    load_pretrained(config, model)
    for param, original in zip(model.parameters(), saved.parameters(), strict=True):
        assert param.dtype == torch.float32
        assert torch.equal(param, original.float())
    export_model(tmp_path, model, config, TOKENS, "language_modeling")
    assert not {"dtype", "torch_dtype"} & json.loads((tmp_path / RECIPE).read_text())["model"]["config"].keys()


def test_an_export_of_an_older_run_in_bfloat16_is_loaded_with_the_same_values(tmp_path):
    config = CausalLMModelConfig(name="gpt2", config={**SMALL["gpt2"], "dtype": "bfloat16"})
    old = saved_folder(tmp_path / "saved", "gpt2", torch.bfloat16)
    export_model(tmp_path, old, config, TOKENS, "language_modeling")
    assert "bfloat16" in (tmp_path / RECIPE).read_text()
    for param, original in zip(load_model(tmp_path).parameters(), old.parameters(), strict=True):
        assert torch.equal(param, original.float())


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_a_job_that_asks_for_weights_of_another_precision_is_told_of_the_option(name):
    config = CausalLMModelConfig(name="gpt2", config={**SMALL["gpt2"], name: "bfloat16"})
    with pytest.raises(JobError, match=rf"model\.config\.{name}: .*float32, got bfloat16; set precision: bfloat16"):
        check(config, TOKENS, "float32")
