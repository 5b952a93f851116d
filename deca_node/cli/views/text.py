"""Small texts for terminals: printable names, durations and sizes."""


def printable(text: str) -> str:
    """The text with a replacement character for everything that could move the cursor or change the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def duration(seconds: float) -> str:
    """Two units at most: 3 d 4 h, 5 min 6 s, 12 ms."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    left = round(seconds)
    for unit, size, finer, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit}" + (f" {rest} {finer}" if rest else "")
    return f"{left} s"


def size_text(nbytes: float) -> str:
    """Bytes in binary units: 5.0 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"
