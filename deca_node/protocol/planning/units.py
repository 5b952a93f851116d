"""Bytes and seconds as text for people."""


def bytes_text(count: float) -> str:
    """Bytes in decimal units with three digits, as in 24.1 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def seconds_text(seconds: float) -> str:
    """A duration in a suitable unit, as in 12 ms, 3.4 h, 1.2 days."""
    for unit, factor, most in (("ms", 1e-3, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172_800.0)):
        if seconds < most:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 86_400:,.1f} days"
