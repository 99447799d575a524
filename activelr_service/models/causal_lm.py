"""Causal language models of transformers, made from a config or loaded from a local folder. Nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

from activelr_service.config.model import RUNS_CODE, CausalLMModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError

# Configs of different models have different names for the largest number of tokens in a block.
POSITIONS = ("n_positions", "max_position_embeddings")
DTYPES = ("dtype", "torch_dtype")


def check(config: CausalLMModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` if the folder holds no model, or if the vocabulary or the blocks of the data are too large."""
    for name in DTYPES:
        if config.config.get(name, "float32") != "float32":
            text = (
                f"weights are trained in float32, got {config.config[name]}; set precision: bfloat16 to compute in it"
            )
            raise JobError.at(f"model.config.{name}", text)
    fields = config.config if config.path is None else {**read_config(config.path), **config.config}
    vocab_size = fields.get("vocab_size")
    if vocab_size is not None and info.vocab_size and vocab_size < info.vocab_size:
        text = f"the data hold token ids up to {info.vocab_size - 1}, got vocab_size {vocab_size}"
        raise JobError.at("model.config.vocab_size" if config.path is None else "model.path", text)
    check_positions(next((fields[name] for name in POSITIONS if name in fields), None), info)


def check_positions(positions: int | None, info: DataInfo) -> None:
    """Raise :class:`JobError` if a block has more tokens than the model has positions. None means that no limit is known."""
    if positions is not None and positions < info.input_shape[0]:
        text = f"the model has positions for {positions} tokens, the blocks have {info.input_shape[0]}"
        raise JobError.at("model", f"{text}; set data.block_size, or n_positions in model.config")


def build(config: CausalLMModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    """Make the model with random weights, for the vocabulary of the data unless the config gives another size.

    The weights are float32, even if those of the folder are not: bfloat16 would round small updates away.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = _given_fields(config)
    try:
        if config.path is not None:
            fields = AutoConfig.from_pretrained(config.path, local_files_only=True, trust_remote_code=False, **given)
        else:
            own = {"vocab_size": info.vocab_size, "bos_token_id": None, "eos_token_id": None}
            fields = AutoConfig.for_model(config.name, **{**own, **given})
        check_positions(getattr(fields, "max_position_embeddings", None), info)
        return AutoModelForCausalLM.from_config(fields, trust_remote_code=False, dtype=torch.float32)
    except (TypeError, ValueError, KeyError, OSError) as error:
        if isinstance(error, JobError):
            raise
        place, shown = ("model.path", config.path) if config.path else ("model.name", config.name)
        text = " ".join(str(error).split())[:300]
        if "trust_remote_code" in str(error):
            text = "it needs code that comes with it, which is not run; use a model that transformers has itself"
        raise JobError.at(place, f"transformers cannot build {shown!r}: {text}") from error


def load_pretrained(model: Any, config: CausalLMModelConfig) -> None:
    """Load the weights in the folder that the config names, if it names one. Only safetensors files are read."""
    if config.path is None:
        return
    from transformers import AutoModelForCausalLM

    pretrained = AutoModelForCausalLM.from_pretrained(
        config.path, config=model.config, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    model.load_state_dict(pretrained.state_dict())


def exported_config(config: CausalLMModelConfig) -> CausalLMModelConfig:
    """Return the config that builds the same model without the folder."""
    if config.path is None:
        return config
    fields = {**read_config(config.path), **config.config}
    left_out = ("model_type", "architectures", *DTYPES)
    kept = {name: value for name, value in without_code(fields).items() if name not in left_out}
    return CausalLMModelConfig(name=fields["model_type"], config=kept)


def _given_fields(config: CausalLMModelConfig) -> dict[str, Any]:
    """The fields of the config without the dtype. Models that older runs exported have one."""
    return {name: value for name, value in config.config.items() if name not in DTYPES}


def without_code(fields: Any) -> Any:
    """The fields without those that name code of the folder, at any depth."""
    if isinstance(fields, dict):
        return {name: without_code(value) for name, value in fields.items() if name not in RUNS_CODE}
    return [without_code(value) for value in fields] if isinstance(fields, list) else fields


def read_config(path: str) -> dict[str, Any]:
    """The fields in the config.json of a folder. Raises :class:`JobError` unless it holds a model with safetensors."""
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise JobError.at("model.path", f"no such file: {folder / 'config.json'}; a folder of save_pretrained has one")
    if not list(folder.glob("*.safetensors")):
        hint = "save it again with save_pretrained, which writes them"
        raise JobError.at("model.path", f"{folder} has no .safetensors weights, and pickled ones are not read; {hint}")
    try:
        fields = json.loads((folder / "config.json").read_text())
        return {**fields, "model_type": fields["model_type"]}
    except (ValueError, KeyError, TypeError) as error:
        raise JobError.at("model.path", f"{folder / 'config.json'} is not a model's config: {error!r}") from error
