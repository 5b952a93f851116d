"""A chunk is copied and its checksum taken in one pass: both are what the two passes give that this replaces."""

import ctypes
import shutil
import subprocess

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.wire import checked_copy
from deca_node.storage.compiled import load_built
from tests.numerics.codecs.compiled import COMPILER, NO_COMPILER, ROOT

HEAD = bytes(range(20))
LENGTHS = [0, 1, 17, 240, 241, 255, 256, 257, 1023, 1024, 1025, 1088, 2047, 2048, 2049, 70_001]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """This one file, built anew, so that the test does not run on a library left over from an older version."""
    if shutil.which(COMPILER) is None:
        pytest.skip(NO_COMPILER)
    source = ROOT / "deca_node" / "daemon" / "wire" / "checked_copy.c"
    built = tmp_path_factory.mktemp("checked") / "checked_copy.so"
    subprocess.run([COMPILER, "-std=c11", "-O2", "-fPIC", "-shared", str(source), "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))


def content(nbytes: int) -> bytearray:
    return bytearray((i * i * 31 + i) % 251 for i in range(nbytes))


def expected(data: bytes | bytearray) -> bytes:
    return HEAD[:5] + xxhash.xxh3_64_digest(data)[::-1] + HEAD[13:] + data


def check(data: bytearray) -> None:
    message = checked_copy.append_checked(HEAD, 5, memoryview(data))
    assert message == expected(data)
    place = bytearray(len(data) + 2)
    found = checked_copy.copy_checked(message, len(HEAD), memoryview(place)[1:-1])
    assert found == xxhash.xxh3_64_intdigest(data)
    assert place == b"\0" + data + b"\0", "nothing beside its place is touched"


@pytest.mark.parametrize("nbytes", LENGTHS)
def test_one_pass_gives_what_two_give(library: ctypes.CDLL, nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = checked_copy.compiled_pass(library)
    assert compiled is not None
    for way in (compiled, None):
        monkeypatch.setattr(checked_copy, "COMPILED", way)
        check(content(nbytes))


@given(st.binary(max_size=3000), st.integers(0, 64))
def test_data_may_begin_at_any_byte(data: bytes, before: int) -> None:
    whole = bytearray(before) + data
    message = checked_copy.append_checked(HEAD, 5, memoryview(whole)[before:])
    assert message == expected(data)
    # What cannot be written to has no address to be had, and takes the other way.
    assert checked_copy.append_checked(HEAD, 5, memoryview(bytes(whole))[before:]) == message


def test_what_does_not_lie_in_the_message_is_refused() -> None:
    for start, nbytes in ((-1, 3), (0, 301), (300, 1)):
        with pytest.raises(ValueError, match=f"{nbytes} bytes from {start} of 300"):
            checked_copy.copy_checked(bytes(300), start, memoryview(bytearray(nbytes)))


def test_without_the_library_or_the_function_there_is_no_compiled_pass() -> None:
    """A compiler without vectors of 64 bytes leaves the function out of the library."""
    assert checked_copy.compiled_pass(None) is None
    assert checked_copy.compiled_pass(ctypes.pythonapi) is None


def test_a_library_that_is_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.storage.compiled.LIBRARY", "deca_node.numerics.codecs._no_such_library")
    assert load_built() is None
