"""Bytes that nobody sane would send, and files that nobody sane would write, for everything that reads either.

A **decoder** takes bytes and gives a value or one of our own errors; anything else (another exception, a hang, memory
without measure) is a finding. ``decoders`` says what that means, a module per target holds the decoders of one area and
valid messages to start from, ``test_decoders`` tries each with hypothesis in ``make test``, and ``make fuzz`` runs the
targets under a coverage-guided fuzzer (atheris, which is libFuzzer for Python; for codec.c libFuzzer itself, with
sanitizers). docs/FUZZING.md lists what is covered by what, and what was found.
"""
