"""From records to tokens that know whether they are trained on.

A text is its tokens and EOS, all of them trained on. A completion is the prompt's tokens, which are
only read, then the completion's and EOS, which are trained on; the two are tokenized apart, so that no token
straddles the boundary. A chat is what the tokenizer's chat template makes of it, trained on in the assistant's
turns. BOS stands once at the start of a text or prompt if the tokenizer adds one, and is never trained on; a
tokenizer without EOS adds none. Special tokens spelled out in the data are taken as special tokens.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from deca_node.numerics.data.files import BadRecords, Source
from deca_node.numerics.data.records import ASSISTANT, ChatRecord, Record, TextRecord
from deca_node.numerics.data.sequences import Ids, RecordTokens
from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokenizers keep about 100 bytes per token until a call returns, so a call gets a few megabytes of text at most,
# and a long text is tokenized in pieces (in parallel, where there are cores for it).
_CALL_CHARACTERS = 1 << 21
_PIECE_CHARACTERS = 1 << 17
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")

Item = TypeVar("Item")


class RecordTokenizer:
    """Turns records into tokens that know whether they are trained on."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", bad: BadRecords) -> None:
        self._tokenizer = tokenizer
        self._bad = bad
        self._bos = np.array(_beginning(tokenizer), np.int32)
        self._eos = np.array([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id], np.int32)

    def encode(self, records: list[Record], report: Callable[[int], None] = lambda waiting: None) -> list[RecordTokens]:
        """Tokens of each record that is not bad, in order; ``report`` is told how many characters still wait."""
        texts: list[str] = []
        for record in records:
            if isinstance(record, TextRecord):
                texts.append(record.text)
            elif not isinstance(record, ChatRecord):
                texts += (record.prompt, record.completion)
        bodies = iter(self._bodies(texts, report))
        encoded = []
        for record in records:
            try:
                encoded.append(self._tokens(record, bodies))
            except DataError as error:
                self._bad.add(error)
        return encoded

    def _tokens(self, record: Record, bodies: Iterator[Ids]) -> RecordTokens:
        if isinstance(record, ChatRecord):
            return self._chat(record)
        if isinstance(record, TextRecord):
            return self._joined(record.source, np.empty(0, np.int32), next(bodies), text=True)
        return self._joined(record.source, next(bodies), next(bodies))

    def _bodies(self, texts: list[str], report: Callable[[int], None]) -> list[Ids]:
        """Tokens of each text, without any that the tokenizer would put around it."""
        bodies: list[list[Ids]] = [[] for _ in texts]
        waiting = sum(map(len, texts))
        pieces = ((index, piece) for index, text in enumerate(texts) for piece in _pieces(text))
        for run in runs(pieces, lambda indexed: len(indexed[1])):
            out = self._tokenizer([piece for _, piece in run], add_special_tokens=False, verbose=False)
            for (index, _), ids in zip(run, out["input_ids"], strict=True):
                bodies[index].append(np.array(ids, np.int32))
            waiting -= sum(len(piece) for _, piece in run)
            report(waiting)
        return [np.concatenate(body) for body in bodies]

    def _joined(self, source: Source, context: Ids, learnt: Ids, text: bool = False) -> RecordTokens:
        """[BOS, context, learnt, EOS], with BOS and EOS exactly once where the text spells them out itself."""
        if not len(learnt):
            raise DataError(f"{source}: the tokenizer makes no tokens of it")
        if len(context):
            context = self._without_bos(context)
        else:
            learnt = self._without_bos(learnt)
        eos = self._eos[:0] if np.array_equal(learnt[-1:], self._eos) else self._eos
        ids = np.concatenate([self._bos, context, learnt, eos])
        return RecordTokens(ids, np.arange(len(ids)) >= len(self._bos) + len(context), text)

    def _without_bos(self, ids: Ids) -> Ids:
        count = len(self._bos)
        return ids[count:] if np.array_equal(ids[:count], self._bos) else ids

    def _chat(self, record: ChatRecord) -> RecordTokens:
        if not self._tokenizer.chat_template:
            raise DataError(
                f"{record.source}: a chat, but the tokenizer has no chat template; "
                "use the model's chat version, or write prompt and completion"
            )
        try:
            marked = _GENERATION_TAG.search(self._tokenizer.get_chat_template())
            tokens = self._chat_by_mark(record) if marked else self._chat_by_prefixes(record)
        except DataError:
            raise
        except Exception as error:  # A template is a program by somebody else, and fails as it pleases.
            raise DataError(f"{record.source}: the chat template cannot render the chat ({error})") from error
        if not tokens.trained.any():
            raise DataError(f"{record.source}: the chat template leaves no token in the assistant's turns")
        return tokens

    def _chat_by_mark(self, record: ChatRecord) -> RecordTokens:
        """The template itself marks what the assistant generates."""
        out = self._tokenizer.apply_chat_template(
            list(record.messages), return_assistant_tokens_mask=True, tokenizer_kwargs={"verbose": False}
        )
        return RecordTokens(np.array(out["input_ids"], np.int32), np.array(out["assistant_masks"], np.bool_))

    def _chat_by_prefixes(self, record: ChatRecord) -> RecordTokens:
        """A turn is what it adds to the rendering of the chat so far and the header that asks for an answer."""
        text = self._render(record, len(record.messages))
        out = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        begins = np.array(out["offset_mapping"], np.int64).reshape(-1, 2)[:, 0]
        trained = np.zeros(len(begins), np.bool_)
        for low, high in self._assistant_spans(record, text):
            trained |= (begins >= low) & (begins < high)
        return RecordTokens(np.array(out["input_ids"], np.int32), trained)

    def _assistant_spans(self, record: ChatRecord, text: str) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) character of the assistant's turns in the rendered chat."""
        for turn, message in enumerate(record.messages):
            if message["role"] != ASSISTANT:
                continue
            header = self._render(record, turn, add_generation_prompt=True)
            so_far = self._render(record, turn + 1)
            if not header or not so_far.startswith(header) or not text.startswith(so_far):
                raise DataError(
                    f"{record.source}: the assistant's turn (message {turn + 1}) cannot be told apart: it opens the "
                    "chat, or the chat template renders the chat up to it differently from the whole; use a template "
                    "with {% generation %}, or write prompt and completion"
                )
            yield len(header), len(so_far)

    def _render(self, record: ChatRecord, turns: int, add_generation_prompt: bool = False) -> str:
        if turns == 0:
            return ""  # Templates need a message; and a chat that the assistant opens has no header to cut off.
        rendered: str = self._tokenizer.apply_chat_template(
            list(record.messages[:turns]), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return rendered


def runs(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in runs of about ``_CALL_CHARACTERS``."""
    run: list[Item] = []
    size = 0
    for item in items:
        run.append(item)
        size += characters(item)
        if size >= _CALL_CHARACTERS:
            yield run
            run, size = [], 0
    if run:
        yield run


def _beginning(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """What the tokenizer puts before a text: BOS, mostly, or nothing."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return full[:start]


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most ``_PIECE_CHARACTERS``, cut after a newline or before a space if there is one."""
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        limit = start + _PIECE_CHARACTERS
        end = text.rfind("\n", start, limit) + 1 or text.rfind(" ", start, limit)
        if end <= start:
            end = limit
        yield text[start:end]
        start = end
    yield text[start:]
