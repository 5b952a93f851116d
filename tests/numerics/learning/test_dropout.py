"""The run's own probability of dropout: every place of an architecture has it, and a model that is judged has none."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel

from deca_node.numerics.forecast.shapes import planned_model
from deca_node.numerics.learning.dropout import set_dropout
from deca_node.numerics.learning.loss import judging
from deca_node.protocol.agreed.run import OWN_DROPOUT, RunSettings
from deca_node.protocol.errors import ModelError, SettingsError
from tests.numerics.model.small_models import gpt2, llama

IDS = torch.arange(24).view(2, 12)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_modules_and_the_numbers_of_attention_are_set() -> None:
    model = gpt2()
    set_dropout(model, 0.25)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    attention = llama()
    set_dropout(attention, 0.25)
    found = [module.attention_dropout for module in attention.modules() if hasattr(module, "attention_dropout")]
    assert found == [0.25, 0.25], "one for each layer"


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_model_in_training_drops_and_one_that_is_judged_does_not(make: type[PreTrainedModel]) -> None:
    model = make().train()
    set_dropout(model, 0.0)
    whole = logits(model)
    assert torch.equal(logits(model), whole), "without dropout there is no chance"
    set_dropout(model, 0.5)
    assert not torch.equal(logits(model), logits(model))
    with judging(model):
        assert torch.allclose(logits(model), whole, atol=1e-6)
    assert not torch.equal(logits(model), logits(model))


def test_the_generator_decides_what_is_dropped() -> None:
    model = llama().train()
    set_dropout(model, 0.5)
    state = torch.get_rng_state()
    first = logits(model)
    torch.set_rng_state(state)
    assert torch.equal(logits(model), first)


def test_by_default_the_models_own_stays_and_its_config_always() -> None:
    model = gpt2()
    before = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    set_dropout(model, OWN_DROPOUT)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == before
    assert RunSettings().dropout == OWN_DROPOUT
    set_dropout(model, 0.9)
    assert model.config.resid_pdrop == 0.1


def test_a_model_without_dropout_is_named() -> None:
    model = MambaForCausalLM(MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, state_size=4))
    with pytest.raises(ModelError, match=r"dropout = 0\.1, but MambaForCausalLM has no dropout; leave dropout = -1"):
        set_dropout(model, 0.1)


@pytest.mark.parametrize("wrong", [-0.5, -2.0, 1.0])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(SettingsError, match="dropout"):
        RunSettings(dropout=wrong)


def test_a_plan_refuses_it_too(tmp_path: Path) -> None:
    MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, state_size=4).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no dropout"):
        planned_model(str(tmp_path), RunSettings(dropout=0.1, sequence_length=8))
