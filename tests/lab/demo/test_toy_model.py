"""The toy model is an ordinary checkpoint, and equal every time."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deca_node.lab.demo.toy_model import RECIPE_FILE, Recipe, ToyModel, make_toy_model
from deca_node.numerics.data.formats.sources import BadRecords, Source
from deca_node.numerics.data.records import ChatRecord
from deca_node.numerics.data.tokenizing import RecordTokenizer

TINY = Recipe(
    vocabulary=300,
    hidden=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    steps=3,
    batch_size=2,
    sequence_length=32,
    threads=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ToyModel:
    return make_toy_model(tmp_path_factory.mktemp("toy") / "model", TINY)


def test_transformers_load_it(made: ToyModel) -> None:
    model = AutoModelForCausalLM.from_pretrained(made.path)
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    assert model.num_parameters() == made.parameters
    assert model.config.vocab_size == len(tokenizer) == 300
    assert model.config.eos_token_id == tokenizer.eos_token_id
    tokens = tokenizer("import this", return_tensors="pt").input_ids
    assert torch.isfinite(model(input_ids=tokens, labels=tokens).loss)


@pytest.mark.parametrize("text", ["def f(x):\n\treturn x  # ok\n", "Grüße, 世界 🙂"])
def test_any_text_survives_the_tokenizer(made: ToyModel, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_it_chats_in_plain_words(made: ToyModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    chat = [{"role": "user", "content": " How many? "}, {"role": "assistant", "content": "Three."}]
    asked = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "User:\nHow many?\nAssistant:\n"
    assert tokenizer.apply_chat_template(chat, tokenize=False) == f"{asked}Three.{tokenizer.eos_token}"
    record = ChatRecord(Source("chats.jsonl", 1), tuple(chat))
    tokens = RecordTokenizer(tokenizer, BadRecords(skip=False)).encode([record])[0]
    learnt = tokenizer.decode([each for each, counts in zip(tokens.ids, tokens.trained, strict=True) if counts])
    assert learnt == f"Three.{tokenizer.eos_token}"


def test_equal_recipes_give_equal_models(made: ToyModel, tmp_path: Path) -> None:
    again = make_toy_model(tmp_path / "model", TINY)
    assert again.loss == made.loss
    for name in ("model.safetensors", "tokenizer.json"):
        assert (again.path / name).read_bytes() == (made.path / name).read_bytes()


def test_a_complete_folder_is_not_made_again(made: ToyModel) -> None:
    seen: list[int] = []
    again = make_toy_model(made.path, TINY, lambda done, steps, loss: seen.append(done))
    assert again == dataclasses.replace(made, cached=True)
    assert seen == []


def test_another_recipe_replaces_what_is_there(tmp_path: Path) -> None:
    quick = dataclasses.replace(TINY, steps=1)
    make_toy_model(tmp_path / "model", quick)
    other = make_toy_model(tmp_path / "model", dataclasses.replace(quick, layers=1))
    assert not other.cached
    assert AutoModelForCausalLM.from_pretrained(other.path).config.num_hidden_layers == 1


def test_a_folder_without_its_last_file_is_not_complete(tmp_path: Path) -> None:
    quick = dataclasses.replace(TINY, steps=1)
    made = make_toy_model(tmp_path / "model", quick)
    (made.path / RECIPE_FILE).write_text("{")
    assert not make_toy_model(made.path, quick).cached


def test_progress_is_told_and_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    seen: list[tuple[int, int]] = []
    make_toy_model(tmp_path / "model", TINY, lambda done, steps, loss: seen.append((done, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
