"""SmolLM2, a language model, asked for a label: the sentence, a question that names all labels, and one token.

Only that token is in the loss, as with records of a prompt and a completion. So the model is a classifier to the rest
of this bench: its logits for a record are those of the token after the prompt, over all tokens of the task.

The labels' tokens come first in the cut table of tokens, so that the number of a label is the number of its token.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from bench.pretrained.texts import Text

QUESTIONS = {
    "sentiment": "Is this negative, neutral or positive? It is",
    "topics": "What is it: act, animal, artifact, communication, food, location, person or plant? It is",
}


class Prompted(LlamaForCausalLM):
    """Gives the logits of the token after each prompt, float32 [b, tokens]."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool = False, **more: Any
    ) -> SequenceClassifierOutput:
        """``input_ids`` and ``attention_mask``, int64 [b, L], are padded on the right."""
        hidden = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **more
        ).last_hidden_state
        last = attention_mask.sum(1) - 1
        return SequenceClassifierOutput(logits=self.lm_head(hidden[torch.arange(len(last)), last]))


def load(folder: Path) -> PreTrainedModel:
    """The model of a Hugging Face folder, in float32."""
    model: PreTrainedModel = Prompted.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model


def prompts(kind: str, texts: Iterable[Text]) -> Iterator[Text]:
    """The same texts with the question behind them."""
    for text in texts:
        yield text._replace(text=f"{text.text}\n{QUESTIONS[kind]}")


def answers(tokenizer: PreTrainedTokenizerBase, labels: Iterable[str]) -> list[int]:
    """The token that begins each label."""
    found = [tokenizer(f" {label}")["input_ids"][0] for label in labels]
    assert len(set(found)) == len(found), "no two labels begin with the same token"
    return found
