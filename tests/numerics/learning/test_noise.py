"""NEFTune: noise of the right size on the embeddings in training, and none where a model is judged."""

import math

import torch
from torch import Tensor

from deca_node.numerics.learning.loss import judging
from deca_node.numerics.learning.noise import add_noise
from tests.numerics.model.small_models import llama

IDS = torch.arange(24).view(2, 12)
ALPHA = 5.0


def noise(model: torch.nn.Module, plain: Tensor) -> Tensor:
    return (model.get_input_embeddings()(IDS) - plain).detach()  # type: ignore[operator]


def test_the_noise_is_uniform_within_its_bound() -> None:
    torch.manual_seed(0)
    model = llama().train()
    plain = model.get_input_embeddings()(IDS).detach()
    add_noise(model, ALPHA)
    found = torch.stack([noise(model, plain) for _ in range(50)])
    bound = ALPHA / math.sqrt(12 * plain.shape[-1])
    assert 0.99 * bound < found.abs().max() <= 1.001 * bound
    assert abs(float(found.square().mean().sqrt()) / bound - 1 / math.sqrt(3)) < 0.01


def test_a_model_that_is_judged_has_none() -> None:
    model = llama().train()
    plain = model.get_input_embeddings()(IDS).detach()
    add_noise(model, ALPHA)
    with judging(model):
        assert not noise(model, plain).any()
    assert noise(model, plain).any()


def test_without_the_setting_nothing_is_hooked() -> None:
    model = llama().train()
    add_noise(model, 0.0)
    assert not model.get_input_embeddings()._forward_hooks
