"""A chat template of the node's own, in place of the tokenizer's.

A base model has no template, and the template of a chat model may say nothing of what is generated. The setting
``chat_template`` names a file with another: a Jinja template as model folders have it in ``chat_template.jinja``. It
is saved with the tuned model, which speaks it from then on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_BYTES_MAX = 1 << 20
_TRIAL = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]


def use_template(tokenizer: "PreTrainedTokenizerBase", file: str) -> None:
    """Give the tokenizer the chat template in ``file``; without a file nothing changes.

    Raises DataError where the file cannot be read or is no template.
    """
    if file:
        path = Path(file).expanduser()
        template = _read(path)
        _check(path, template)
        tokenizer.chat_template = template


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(TEMPLATE_BYTES_MAX + 1)
        template = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: the chat template cannot be read ({error.strerror}); check chat_template") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the chat template is not UTF-8 (byte {error.start + 1})") from error
    if not template.strip() or len(content) > TEMPLATE_BYTES_MAX:
        why = "is empty" if not template.strip() else "is larger than 1 MiB"
        raise DataError(f"{path}: the chat template {why}; chat_template needs a file with a Jinja template")
    return template


def _check(path: Path, template: str) -> None:
    """Refuse what is no Jinja. What a template does with a chat is seen with the first chat."""
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        render_jinja_template(conversations=[_TRIAL], chat_template=template)
    except TemplateSyntaxError as error:
        says = f"{path} line {error.lineno}: the chat template is no valid Jinja ({error.message})"
        raise DataError(f"{says}; correct it, or leave chat_template out") from error
    except Exception:  # noqa: BLE001  (a template is a program by others; this chat is not the data's)
        return
