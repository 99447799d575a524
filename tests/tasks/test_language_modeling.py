"""Perplexity is that of a computation by hand, for any number of ranks; models come from a config or a local folder."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from activelr_service.data import build_data, prepare_data
from activelr_service.errors import JobError
from activelr_service.export.model import load_model
from activelr_service.models import build_model
from activelr_service.service.check import check_job, prepare_job
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.tasks import TASKS
from activelr_service.training.build import build_training
from activelr_service.training.evaluate import evaluate
from activelr_service.training.loop import fit
from tests.conftest import export_model, small_job
from tests.data.generate_text import write_wikitext
from tests.data.test_text import stream, text_config
from tests.models.test_models import job_with
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, store

pytestmark = pytest.mark.slow

TASK = TASKS["language_modeling"]
TINY = {"n_layer": 1, "n_head": 1, "n_embd": 16}


class Unigram(nn.Module):
    """Says the same of every next token, whatever came before it."""

    def __init__(self, probabilities):
        super().__init__()
        self.logits = nn.Parameter(probabilities.log().float())

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def measured(rank, prepared, probabilities):
    _, val = build_data(prepared)
    world_size = torch.distributed.get_world_size()
    mine = DataLoader(Subset(val, range(rank, len(val), world_size)), batch_size=3)
    return evaluate(TASK, Unigram(probabilities), mine, CPU, "float32")["perplexity"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_perplexity_of_a_unigram_model_is_the_one_computed_by_hand(tmp_path, world_size):
    prepared = prepare_data(text_config(write_wikitext(tmp_path / "wiki")), tmp_path / "cache")
    tokens, _ = stream(prepared, "validation")
    probabilities = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.01
    probabilities /= probabilities.sum()
    by_hand = math.exp(-sum(math.log(probabilities[token]) for token in tokens[1:].tolist()) / (len(tokens) - 1))
    assert run_ranks(measured, world_size, tmp_path, prepared, probabilities) == pytest.approx(
        [by_hand] * world_size, rel=1e-6
    )


def text_job(tmp_path, **changes):
    write_wikitext(tmp_path / "wiki")
    data = {"type": "text", "root": str(tmp_path / "wiki"), "block_size": 16, "vocab_size": 300}
    model = {"type": "causal_lm", "name": "gpt2", "config": TINY}
    return small_job(tmp_path, **{"epochs": 2, "model": model, "data": data, "global_batch_size": 16, **changes})


def fit_job(job, folder):
    prepared, info = prepare_job(job)
    resolved, _ = resolve_job(prepared, info, Resources(1, 0))
    training = build_training(resolved, info, CPU)
    return training, info, fit(training, store(folder), print)


def test_a_language_model_learns_and_a_saved_one_is_trained_on(tmp_path):
    training, info, history = fit_job(text_job(tmp_path, workers={"num_workers": 1}), tmp_path / "first")
    assert history[-1].metrics["val/perplexity"] < 0.9 * 300
    training.model.save_pretrained(tmp_path / "saved")
    continued = text_job(
        tmp_path, workers={"num_workers": 1}, model={"type": "causal_lm", "path": str(tmp_path / "saved")}
    )
    again, info, longer = fit_job(continued, tmp_path / "second")
    assert longer[0].metrics["train/loss"] < history[0].metrics["train/loss"] - 0.3
    export_model(tmp_path / "exported", again.model, continued.model, info, "language_modeling")
    (tmp_path / "saved").rename(tmp_path / "gone")
    rebuilt = load_model(tmp_path / "exported")
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(rebuilt(input_ids=tokens).logits, again.model.eval()(input_ids=tokens).logits)


def test_gpt2_has_124_439_808_parameters():
    job = job_with({"type": "causal_lm", "name": "gpt2"}, task="language_modeling")
    from tests.models.test_models import TOKENS

    with torch.device("meta"):
        model = build_model(job.model, TOKENS._replace(vocab_size=50257), "language_modeling")
    assert sum(param.numel() for param in model.parameters()) == 124_439_808


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ({"name": "gpt2", "config": {"n_positions": 8}}, {}, "positions for 8 tokens, the blocks have 16"),
        ({"path": "nowhere"}, {}, "model.path: no such file: nowhere/config.json"),
        ({"path": "pickled"}, {}, "has no .safetensors weights, and pickled ones are not read"),
        ({"name": "gpt2"}, {"tokenizer": "nowhere"}, "data.tokenizer: no such file or folder: nowhere"),
        ({"name": "gpt2", "path": "both"}, {}, "model: give name, for random weights, or path"),
        ({}, {}, "model: give name, for random weights, or path"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_starts(tmp_path, monkeypatch, model, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text('{"model_type": "gpt2"}')
    write_wikitext(tmp_path / "wiki")
    with pytest.raises(JobError) as caught:
        check_job(
            small_job(
                tmp_path,
                model={"type": "causal_lm", **model},
                data={"type": "text", "root": "wiki", "block_size": 16, **data},
            )
        )
    assert message in str(caught.value)
