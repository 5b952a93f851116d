"""A chat template of the node's own: read, checked, used, and saved with the tokenizer."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from deca_node.numerics.data.templates import TEMPLATE_BYTES_MAX, use_template
from deca_node.protocol.errors import DataError
from tests.numerics.data.byte_tokens import CHAT, MARKED_TEMPLATE, PLAIN_TEMPLATE, byte_tokenizer


@pytest.mark.parametrize("own", [None, MARKED_TEMPLATE])
def test_the_file_takes_the_place_of_the_tokenizers_own(tmp_path: Path, own: str | None) -> None:
    file = tmp_path / "own.jinja"
    file.write_bytes(b"\xef\xbb\xbf" + PLAIN_TEMPLATE.encode())
    tokenizer = byte_tokenizer(own)
    use_template(tokenizer, "")
    assert tokenizer.chat_template == own
    use_template(tokenizer, str(file))
    tokenizer.save_pretrained(tmp_path / "final")
    again = AutoTokenizer.from_pretrained(tmp_path / "final")
    assert again.apply_chat_template(CHAT[1:3], tokenize=False) == "[user]How do you dö?|\n[assistant]Fine 😀.|\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{% for m in messages %}\n{{ m.content ", r"own.jinja line 2: the chat template is no valid Jinja \("),
        (b" \n", r"own.jinja: the chat template is empty; chat_template needs a file with a Jinja template"),
        (b"a" * (TEMPLATE_BYTES_MAX + 1), r"own.jinja: the chat template is larger than 1 MiB"),
        (b"{{ messages }}\xff", r"own.jinja: the chat template is not UTF-8 \(byte 15\)"),
        (None, r"own.jinja: the chat template cannot be read \(No such file or directory\); check chat_template"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    tokenizer = byte_tokenizer(PLAIN_TEMPLATE)
    with pytest.raises(DataError, match=said):
        use_template(tokenizer, str(file))
    assert tokenizer.chat_template == PLAIN_TEMPLATE


def test_a_template_may_refuse_the_trial(tmp_path: Path) -> None:
    """Whether a template suits the data is seen with the data."""
    file = tmp_path / "own.jinja"
    file.write_text("{{ raise_exception('three messages at least') }}")
    tokenizer = byte_tokenizer()
    use_template(tokenizer, str(file))
    assert tokenizer.chat_template == file.read_text()
