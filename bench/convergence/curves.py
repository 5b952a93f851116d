"""Loss over steps as a small SVG, without a library: lines, two axes, a legend."""

from collections.abc import Callable, Mapping, Sequence

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 640, 340, 56, 40, 150, 14

Line = Sequence[tuple[float, float]]


def svg(lines: Mapping[str, Line], x_title: str, y_title: str, y_max: float) -> str:
    """The lines by name, in their order. Values above ``y_max`` are cut off."""
    xs = [x for line in lines.values() for x, _ in line]
    ys = [min(y, y_max) for line in lines.values() for _, y in line]
    low, high = min(ys), max(ys)
    x_scale = (WIDTH - LEFT - RIGHT) / (max(xs) or 1)
    y_scale = (HEIGHT - BOTTOM - TOP) / ((high - low) or 1)

    def place(x: float, y: float) -> str:
        return f"{LEFT + x * x_scale:.1f},{TOP + (high - min(y, y_max)) * y_scale:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#555">',
        *_axes(low, high, max(xs), place),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{x_title}</text>',
        f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{y_title}</text>',
    ]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        dash = "" if number < len(COLOURS) else ' stroke-dasharray="5 3"'
        points = " ".join(place(x, y) for x, y in line)
        y = TOP + 14 + 18 * number
        parts += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.8"{dash} points="{points}"/>',
            f'<line x1="{WIDTH - RIGHT + 10}" x2="{WIDTH - RIGHT + 32}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" '
            f'stroke-width="2"{dash}/><text x="{WIDTH - RIGHT + 38}" y="{y}">{name}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _axes(low: float, high: float, x_max: float, place: Callable[[float, float], str]) -> list[str]:
    parts = []
    for k in range(5):
        x, y = x_max * k / 4, low + (high - low) * k / 4
        px, py = place(x, low).split(",")[0], place(0, y).split(",")[1]
        parts += [
            f'<text x="{px}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:.0f}</text>',
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py}" y2="{py}" stroke="#ccc" stroke-width="0.6"/>',
            f'<text x="{LEFT - 6}" y="{float(py) + 4:.1f}" text-anchor="end">{y:.2f}</text>',
        ]
    return parts
