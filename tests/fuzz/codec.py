"""codec.c and mixing.c by themselves: a C program whose every access sanitizers watch, with libFuzzer's own loop.

The loop is the static library that atheris brings along, so that a C compiler is all it takes.
"""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-ffp-contract=off", "-fno-sanitize-recover=all")
SANITIZERS = "-fsanitize=address,undefined"
LOOP = "libclang_rt.fuzzer_no_main.a"


def build(folder: Path, loop: Path) -> Path:
    """Compile the program into ``folder``; ``loop`` is libFuzzer as a static library."""
    compiler = shutil.which("gcc") or "cc"
    harness, coverage, program = folder / "harness.o", folder / "coverage.o", folder / "codec"
    watch = "-fsanitize-coverage=trace-pc,trace-cmp"
    for command in (
        (compiler, *FLAGS, SANITIZERS, watch, "-c", HERE / "codec_harness.c", "-o", harness),
        ("objcopy", "--redefine-sym", "__sanitizer_cov_trace_pc=deca_cov", harness),
        (compiler, "-O1", "-c", HERE / "codec_coverage.c", "-o", coverage),
        (compiler, SANITIZERS, harness, coverage, loop, "-lstdc++", "-lpthread", "-lm", "-ldl", "-o", program),
    ):
        subprocess.run([str(word) for word in command], check=True)
    return program


def seeds() -> Iterator[bytes]:
    """Every kernel of every codec, on a few lengths around a group's, with numbers that are sound."""
    for choice in range(6):
        for n in (1, 63, 64, 255, 257, 1024, 1025, 2100):
            head = struct.pack(">BHHHB", choice, n, 0, n, 0)
            yield head + _numbers(n) if choice >= 3 else head + struct.pack("<f", 1e-3) + bytes(range(200))


def _numbers(n: int) -> bytes:
    return struct.pack(f"<{n}f", *((i * 37 % 101 - 50) * 1e-4 for i in range(n)))
