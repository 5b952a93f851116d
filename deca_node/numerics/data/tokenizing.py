"""From records to tokens that know whether they are learnt.

::

    text          [BOS] t t t EOS           all learnt but BOS
    completion    [BOS] p p p c c EOS       the completion and EOS are learnt
    chat          as the chat template has it; the assistant's turns are learnt (:mod:`deca_node.numerics.data.chats`)

BOS stands once at the start if the tokenizer puts one there; a tokenizer without EOS adds none. Special tokens that are
spelled out in the data are taken as special tokens.

**Prompt and completion.** The prompt's tokens are those of the prompt alone, since that is what the model is given when
it is asked. The completion's tokens are those that follow them when both are tokenized as one text. Where a token would
hold the end of one and the beginning of the other, the completion is tokenized apart, as a text that goes on: without
the space that some tokenizers (Llama 2's) put in front of every text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from deca_node.numerics.data.chats import Chat, encode
from deca_node.numerics.data.formats.sources import BadRecords, Source
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, Record, TextRecord
from deca_node.numerics.data.sequences import Ids, RecordTokens
from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokenizers keep about 100 bytes per token until a call returns, so a call gets a few megabytes of text at most,
# and a long text is tokenized in pieces (in parallel, where there are cores for it).
_CALL_CHARACTERS = 1 << 21
_PIECE_CHARACTERS = 1 << 17
_BEFORE = ("\n", ":", "a")
"""What a text is put behind, where it goes on from another: the first of these that shares no token with it."""

Each = TypeVar("Each")
Waiting = Callable[[int], None]


class RecordTokenizer:
    """Turns records into tokens that know whether they are learnt. ``notes`` counts what chat templates leave out."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", bad: BadRecords) -> None:
        self._tokenizer = tokenizer
        self._bad = bad
        self._bos = np.array(_beginning(tokenizer), np.int32)
        self._eos = np.array([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id], np.int32)
        self._backend = _backend(tokenizer)
        self._before = {text: self._call([text])[0] for text in _BEFORE}
        self._leads = self._puts_something_in_front()
        self.notes: Counter[str] = Counter()

    def encode(self, records: list[Record], report: Waiting = lambda waiting: None) -> list[RecordTokens]:
        """Tokens of each record that is not bad, in order; ``report`` is told how many characters still wait."""
        return [tokens for _, tokens in self.pairs(records, report)]

    def pairs(
        self, records: list[Record], report: Waiting = lambda waiting: None
    ) -> Iterator[tuple[Record, RecordTokens]]:
        """The same, with each record beside its tokens."""
        bodies = self._of_texts([record.text for record in records if isinstance(record, TextRecord)], report)
        pairs = self._of_pairs([record for record in records if isinstance(record, CompletionRecord)], report)
        for record in records:
            try:
                yield record, self._tokens(record, bodies, pairs)
            except DataError as error:
                self._bad.add(error)

    def _tokens(self, record: Record, bodies: Iterator[Ids], pairs: Iterator[tuple[Ids, Ids]]) -> RecordTokens:
        """Tokens of the next record; ``bodies`` and ``pairs`` hold those of texts and of prompts."""
        if isinstance(record, ChatRecord):
            return self._chat(record)
        if isinstance(record, TextRecord):
            return self._joined(record.source, np.empty(0, np.int32), next(bodies), text=True)
        return self._joined(record.source, *next(pairs))

    # --- texts --------------------------------------------------------------------------------------

    def _of_texts(self, texts: list[str], report: Waiting = lambda waiting: None) -> Iterator[Ids]:
        """Tokens of each text, without any that the tokenizer would put around it."""
        bodies: list[list[Ids]] = [[] for _ in texts]
        waiting = sum(map(len, texts))
        pieces = ((index, k > 0, piece) for index, text in enumerate(texts) for k, piece in enumerate(_pieces(text)))
        for run in runs(pieces, lambda indexed: len(indexed[2])):
            found = self._going_on([piece for _, goes_on, piece in run if goes_on])
            plain = iter(self._call([piece for _, goes_on, piece in run if not goes_on]))
            for index, goes_on, _ in run:
                bodies[index].append(next(found) if goes_on else next(plain))
            waiting -= sum(len(piece) for _, _, piece in run)
            report(waiting)
        return iter([np.concatenate(body) for body in bodies])

    def _of_pairs(self, records: list[CompletionRecord], report: Waiting) -> Iterator[tuple[Ids, Ids]]:
        """Tokens of each prompt and of its completion."""
        prompts = list(self._of_texts([record.prompt for record in records]))
        joint = self._of_texts([record.prompt + record.completion for record in records], report)
        learnt: list[Ids | None] = [
            both[len(prompt) :] if np.array_equal(both[: len(prompt)], prompt) else None
            for prompt, both in zip(prompts, joint, strict=True)
        ]
        apart = self._going_on([r.completion for r, ids in zip(records, learnt, strict=True) if ids is None])
        return iter(
            [(prompt, next(apart) if ids is None else ids) for prompt, ids in zip(prompts, learnt, strict=True)]
        )

    def _going_on(self, texts: list[str]) -> Iterator[Ids]:
        """Tokens of texts that go on from another."""
        return map(self._behind, texts) if self._leads else iter(self._call(texts))

    def _behind(self, text: str) -> Ids:
        for before, ids in self._before.items():
            found = self._call([before + text])[0]
            if len(ids) and np.array_equal(found[: len(ids)], ids):
                return found[len(ids) :]
        return self._call([text])[0]

    def _puts_something_in_front(self) -> bool:
        """Whether a letter that stands alone has other tokens than behind a newline."""
        before, alone, both = self._before["\n"], self._call(["a"])[0], self._call(["\na"])[0]
        return not np.array_equal(both, np.concatenate([before, alone]))

    def _call(self, texts: list[str]) -> list[Ids]:
        if not texts:
            return []
        if self._backend is not None:
            return [
                np.array(found.ids, np.int32)
                for found in self._backend.encode_batch_fast(texts, add_special_tokens=False)
            ]
        out = self._tokenizer(texts, add_special_tokens=False, verbose=False)
        return [np.array(ids, np.int32) for ids in out["input_ids"]]

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

    # --- chats --------------------------------------------------------------------------------------

    def _chat(self, record: ChatRecord) -> RecordTokens:
        if not self._tokenizer.chat_template:
            raise DataError(
                f"{record.source}: a chat, but the tokenizer has no chat template; "
                "name one with chat_template, use the model's chat version, or write prompt and completion"
            )
        try:
            chat = Chat(self._tokenizer, record)
            tokens = encode(self._tokenizer, chat.text, chat.learnt())
        except DataError:
            raise
        except Exception as error:  # A template is a program by somebody else, and fails as it pleases.
            raise DataError(f"{record.source}: the chat template cannot render the chat ({error})") from error
        self.notes += chat.notes
        if not tokens.trained.any():
            raise DataError(f"{record.source}: the chat template leaves no token in the assistant's turns")
        return tokens


def _backend(tokenizer: "PreTrainedTokenizerBase") -> Any:
    """The library below the tokenizer, which makes its tokens on all cores; None where the tokenizer has its own way.

    Called directly, it makes neither masks nor places of characters, which take longer than the tokens.
    """
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    if type(tokenizer)._encode_plus is not PreTrainedTokenizerFast._encode_plus:
        return None
    # A call leaves it as calls are made here: nothing is cut or padded, and special tokens are found.
    tokenizer("a")
    return tokenizer.backend_tokenizer


def runs(items: Iterable[Each], characters: Callable[[Each], int]) -> Iterator[list[Each]]:
    """Items in runs of about ``_CALL_CHARACTERS``."""
    run: list[Each] = []
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
