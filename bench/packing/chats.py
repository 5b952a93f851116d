"""Short chats of a real kind: what a function of the standard library does, and how it is called.

The answers are the functions' own docstrings, which come with Python. The pool depends on Python's version; results
name its digest.
"""

import hashlib
import importlib
import inspect
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = (
    *(
        "argparse",
        "ast",
        "asyncio",
        "base64",
        "bisect",
        "calendar",
        "cmath",
        "codecs",
        "collections",
        "concurrent.futures",
    ),
    *("configparser", "contextlib", "copy", "csv", "datetime", "decimal", "difflib", "dis", "email.utils", "filecmp"),
    *(
        "fnmatch",
        "fractions",
        "functools",
        "gettext",
        "glob",
        "gzip",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "http.client",
    ),
    *("imaplib", "importlib.util", "inspect", "io", "ipaddress", "itertools", "json", "keyword", "linecache", "locale"),
    *("logging", "mailbox", "math", "mimetypes", "multiprocessing.pool", "numbers", "operator", "os", "os.path"),
    *(
        "pathlib",
        "pickle",
        "pickletools",
        "pkgutil",
        "platform",
        "plistlib",
        "poplib",
        "pprint",
        "queue",
        "random",
        "re",
    ),
    *("reprlib", "sched", "secrets", "selectors", "shelve", "shlex", "shutil", "signal", "smtplib", "socket"),
    *("sqlite3", "ssl", "statistics", "string", "struct", "subprocess", "sys", "sysconfig", "tarfile", "tempfile"),
    *("textwrap", "threading", "time", "timeit", "tokenize", "trace", "traceback", "types", "typing", "unicodedata"),
    *("unittest", "urllib.parse", "urllib.request", "uuid", "warnings", "wave", "weakref", "xml.dom.minidom"),
    *("xml.etree.ElementTree", "zipfile", "zlib", "zoneinfo"),
)
ANSWER_MIN, ANSWER_MAX = 40, 250
"""Characters of an answer: such that no chat is longer than a sequence."""
CALL_MAX = 100
HELD_OUT = 60

Chat = dict[str, Any]


def pool() -> list[Chat]:
    """All chats, in an order of no meaning that is the same every time; no answer occurs twice."""
    found: dict[str, Chat] = {}
    with warnings.catch_warnings(action="ignore"):  # Of names that are deprecated.
        for name in MODULES:
            for said, thing in _callables(importlib.import_module(name), name):
                chat = _chat(said, thing)
                if chat is not None:
                    found.setdefault(chat["messages"][1]["content"], chat)
    return sorted(found.values(), key=lambda chat: hashlib.sha256(_line(chat).encode()).digest())


def parts(chats: Sequence[Chat], count: int, seed: int) -> tuple[list[Chat], list[Chat]]:
    """``count`` chats to train on, drawn by the seed, and the held-out ones, which are the same for every seed."""
    return random.Random(f"chats:{seed}").sample(chats[HELD_OUT:], count), list(chats[:HELD_OUT])


def digest(chats: Sequence[Chat]) -> str:
    """The first 16 digits of the SHA-256 sum of all chats."""
    return hashlib.sha256("".join(map(_line, chats)).encode()).hexdigest()[:16]


def write(path: Path, chats: Sequence[Chat]) -> Path:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(map(_line, chats)), encoding="utf-8")
    return path


def _callables(module: ModuleType, name: str) -> Iterator[tuple[str, Any]]:
    """Public functions, classes and methods that this module defines or gives, with their full names."""
    for key, value in sorted(vars(module).items()):
        if key.startswith("_") or not callable(value):
            continue
        yield f"{name}.{key}", value
        if inspect.isclass(value):
            own = ((n, v) for n, v in sorted(vars(value).items()) if not n.startswith("_") and callable(v))
            yield from ((f"{name}.{key}.{n}", v) for n, v in own)


def _chat(name: str, thing: Any) -> Chat | None:
    """Two questions about a function with their answers; None where there is no docstring of a fitting length."""
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    try:
        call = f"{name}{inspect.signature(thing)}"
    except (ValueError, TypeError):
        return None
    # An address in memory would differ in every process.
    if not ANSWER_MIN <= len(paragraph) <= ANSWER_MAX or len(call) > CALL_MAX or " at 0x" in call:
        return None
    turns = (f"What does {name} do in Python?", paragraph, "How is it called?", call)
    return {"messages": [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(turns)]}


def _line(chat: Chat) -> str:
    return json.dumps(chat, ensure_ascii=False) + "\n"
