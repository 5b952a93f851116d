"""The loss in chunks is the loss, with the same gradient, and its logits are small."""

from collections.abc import Callable

import pytest
import torch
import transformers as tf
from torch import nn

from deca_node.numerics.data.batches import IGNORED, Batch
from deca_node.numerics.learning import chunked
from deca_node.numerics.learning.loss import nll_per_row, nll_sum
from tests.numerics.model.small_models import SIZES, gpt2, llama, qwen2

CPU = torch.device("cpu")


def gemma2() -> nn.Module:
    """It caps its logits after the head."""
    return tf.Gemma2ForCausalLM(tf.Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0))


def cohere() -> nn.Module:
    """It scales its logits after the head, whose matrix is that of the embeddings."""
    return tf.CohereForCausalLM(tf.CohereConfig(**SIZES, logit_scale=0.25))


def made(kind: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return kind().to(dtype).train()


def batch(model: nn.Module) -> Batch:
    ids = torch.randint(model.config.vocab_size, (3, 17), generator=torch.Generator().manual_seed(1))
    return Batch(ids, torch.where(torch.arange(17) % 4 == 1, IGNORED, ids))


def gradients(model: nn.Module, given: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = nll_sum(model, given, CPU)
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", [llama, gpt2, qwen2, gemma2, cohere])
def test_loss_and_gradient_are_those_of_whole_logits(
    kind: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(kind)
    model.eval()  # no dropout, which would be drawn anew
    given = batch(model)
    whole, rows = gradients(model, given), nll_per_row(model, given, CPU)
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 4 * model.config.vocab_size * 3 * 5)
    assert chunked.chunkable(model)
    shapes: list[int] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[1]))
    found = gradients(model, given)
    hook.remove()
    assert max(shapes) == 5, "no more logits at once"
    assert found[0] == pytest.approx(whole[0], rel=1e-6)
    assert found[1].keys() == whole[1].keys()
    for name, gradient in whole[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(nll_per_row(model, given, CPU), rows)


def test_a_head_alone_is_trained_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing below requires a gradient."""
    model = made(llama)
    given = batch(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("lm_head"))
    whole = gradients(model, given)
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 1)
    found = gradients(model, given)
    assert list(found[1]) == ["lm_head.weight"]
    torch.testing.assert_close(found[1]["lm_head.weight"], whole[1]["lm_head.weight"], rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_cut_is_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(llama)
    given = batch(model)
    whole = float(nll_sum(model, given, CPU).detach())
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 1)
    monkeypatch.setattr(chunked, "_hidden", lambda model, inputs: inputs["input_ids"].float()[..., None])
    assert not chunked.chunkable(model)
    assert float(nll_sum(model, given, CPU).detach()) == whole
