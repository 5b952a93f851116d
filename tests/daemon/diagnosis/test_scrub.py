"""Known secrets and texts that look like secrets are removed; harmless texts stay."""

import pytest

from deca_node.daemon.diagnosis.scrub import Scrubber

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"before {KEY} after", "MIGHAgEAMBMGByqGSM49"),
        (f"cut {KEY[:60]}", "MIGHAgEAMBMGByqGSM49"),
        ("Authorization: Bearer 0123456789abcdef", "0123456789abcdef"),
        ("GET /v1/status?token=abcdef0123 200", "abcdef0123"),
        ('{"http_password": "hunter22"}', "hunter22"),
        ("HF_TOKEN=hf_AbCdEfGhIjKlMnOpQrSt failed", "hf_AbCdEfGhIjKlMnOpQrSt"),
        ("hf_AbCdEfGhIjKlMnOpQrSt", "hf_AbCdEfGhIjKlMnOpQrSt"),
        ("proxy http://user:pass1234@proxy:80", "pass1234"),
    ],
)
def test_texts_that_look_like_secrets_are_removed(text: str, secret: str) -> None:
    scrubber = Scrubber()
    cleaned = scrubber.clean(text)
    assert secret not in cleaned and "[removed: " in cleaned
    assert sum(scrubber.removed.values()) == 1


def test_known_secrets_are_gone_in_part_and_without_their_lines_ends() -> None:
    scrubber = Scrubber(["s3cr3t-of-the-page", KEY])
    cleaned = scrubber.clean("a s3cr3t-of-the-page b MIGHAgEAMBMGByqGSM49 c xAgEGCCqGSM49AwEHBG0wx")
    assert cleaned == "a [removed: a known secret] b [removed: a known secret] c x[removed: a known secret]x"
    assert scrubber.removed == {"a known secret": 3}


@pytest.mark.parametrize(
    "text",
    [
        "held-out loss (start): 6.6242 over 1984 tokens",
        '"tokens": 1984, "token_count": 7',
        '"http_token": {\n  "value": "",',
        "http_token: /etc/deca/token cannot be read",
        "http_token = none",
        "the key deca-certs/a.key can be read by other users",
        "fingerprint sha256:" + "ab" * 32,
    ],
)
def test_harmless_texts_stay(text: str) -> None:
    assert Scrubber(["short"]).clean(text) == text
