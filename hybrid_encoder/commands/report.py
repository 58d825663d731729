"""A report in one self-contained HTML file: text, tables, curves as inline SVG, pictures as inline JPEG."""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..colormap import colorize
from ..engine.record import read_metrics
from ..errors import UserError
from ..writing import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2530; background: #f7f8fa; margin: 0; }
main { max-width: 1060px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
p.lead { color: #55606e; margin-top: 0; overflow-wrap: anywhere; }
p.verdict { background: #fff; border-left: 6px solid #b3261e; border-radius: 6px; padding: .8rem 1.1rem;
font-size: 1.1rem; } p.verdict.good { border-color: #2e7d32; }
table { border-collapse: collapse; background: #fff; margin: .6rem 0; width: 100%; max-width: 760px; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid #e3e7ec; text-align: right; vertical-align: bottom;
font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } th { color: #55606e; font-weight: 600; }
figure { margin: .8rem 0; } figcaption { color: #55606e; font-size: .9rem; }
img { width: 100%; border-radius: 6px; display: block; } .curves { display: flex; flex-wrap: wrap; gap: 1rem; }
.curves figure { flex: 1 1 320px; max-width: 530px; background: #fff; padding: .8rem; border-radius: 6px; margin: 0; }
.pictures { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: .6rem; }
.pictures figure { margin: 0; }
.bar { display: flex; align-items: center; gap: .6rem; color: #55606e; font-size: .9rem; margin: .8rem 0; }
.bar i { flex: 1; height: 14px; border-radius: 7px; }
pre { background: #1c2530; color: #e8edf3; padding: .9rem 1.1rem; border-radius: 6px; overflow-x: auto; }
@media (max-width: 640px) {
main { padding: 1.2rem .8rem 3rem; } h1 { font-size: 1.5rem; }
.pictures { grid-template-columns: repeat(var(--narrow), 1fr); gap: .4rem; }
table { font-size: .85rem; } th, td { padding: .35rem .4rem; } }
"""
_STOPS = 9
"""Number of colours in the gradient of a colour bar."""


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of a run.

    Attributes:
        title: caption.
        steps, values: of the same length.
        line: value and name of a horizontal line to compare with; None: no line.
    """

    title: str
    steps: list[float]
    values: list[float]
    line: tuple[float, str] | None = None

    def with_line(self, value: float, name: str) -> Curve:
        """The same curve with a horizontal line to compare with."""
        return dataclasses.replace(self, line=(value, name))


def run_curve(folder: Path, name: str, kind: str, title: str) -> Curve:
    """A metric of the run in a folder.

    Args:
        kind: "train" or "val".
    """
    points = [(line["step"], line[name]) for line in read_metrics(folder) if line["kind"] == kind and name in line]
    return Curve(title, [float(step) for step, _ in points], [float(value) for _, value in points])


class Report:
    """Collects the parts of a report, in reading order."""

    def __init__(self, title: str, lead: str) -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>']

    def heading(self, text: str) -> None:
        """Starts a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Adds a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def verdict(self, good: bool, text: str) -> None:
        """Adds a highlighted paragraph, green if `good`, else red."""
        self._parts.append(f'<p class="verdict{" good" if good else ""}">{html.escape(text)}</p>')

    def code(self, text: str) -> None:
        """Adds commands to copy."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Adds a table. Floats have three decimals; the first column holds the names of the rows."""
        cells = [f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in header)}</tr>"]
        for row in rows:
            shown = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row)
            cells.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in shown)}</tr>")
        self._parts.append(f"<table>{''.join(cells)}</table>")

    def curves(self, curves: Sequence[Curve]) -> None:
        """Adds curves side by side."""
        drawn = (
            f"<figure>{_svg(curve)}<figcaption>{html.escape(curve.title)}</figcaption></figure>" for curve in curves
        )
        self._parts.append(f'<div class="curves">{"".join(drawn)}</div>')

    def picture(self, image: np.ndarray, caption: str) -> None:
        """Adds a picture, uint8 RGB (H, W, 3).

        Raises:
            UserError: it cannot be encoded.
        """
        self._parts.append(_figure(image, caption))

    def pictures(self, labelled: Sequence[tuple[str, np.ndarray]], columns: int) -> None:
        """Adds labelled pictures in rows of `columns`; on narrow screens, an even number of columns becomes two.

        Raises:
            UserError: one cannot be encoded.
        """
        figures = "".join(_figure(image, label) for label, image in labelled)
        narrow = 2 if columns % 2 == 0 else columns
        style = f"--columns: {columns}; --narrow: {narrow}"
        self._parts.append(f'<div class="pictures" style="{style}">{figures}</div>')

    def colour_bar(self, dark: str, bright: str) -> None:
        """Adds the colour scale of depth, with names of its dark and bright end."""
        colours = colorize(np.linspace(0, 1, _STOPS)[None], 0.0, 1.0)[0]
        stops = ", ".join(f"rgb({red}, {green}, {blue})" for red, green, blue in colours.tolist())
        bar = f'<i style="background: linear-gradient(to right, {stops})"></i>'
        self._parts.append(
            f'<div class="bar"><span>{html.escape(dark)}</span>{bar}<span>{html.escape(bright)}</span></div>'
        )

    def write(self, path: Path) -> None:
        """Writes the page as one file; it is whole or not there.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
            f"<body><main>{''.join(self._parts)}</main></body></html>\n"
        )
        write_text(path, page)


def _figure(image: np.ndarray, caption: str) -> str:
    """A picture, uint8 RGB, and its caption as HTML."""
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not encoded:
        raise UserError(f"a picture of shape {image.shape} could not be encoded")
    source = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{source}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _svg(curve: Curve) -> str:
    """The curve as SVG, with the ends of its ranges at the axes."""
    if len(curve.values) < 2:
        return "<p>too few points for a curve</p>"
    x, y = np.asarray(curve.steps), np.asarray(curve.values)
    heights = [*curve.values, *([curve.line[0]] if curve.line else [])]
    low, high = min(heights), max(heights)

    def down(values: np.ndarray) -> np.ndarray:
        return 12 + 130 * (high - values) / max(high - low, 1e-9)

    across = 46 + 340 * (x - x[0]) / max(x[-1] - x[0], 1e-9)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down(y), strict=True))
    label = 'font-size="11" fill="#55606e"'
    compared = ""
    if curve.line is not None:
        value, name = curve.line
        at = float(down(np.array(value)))
        compared = (
            f'<path d="M46 {at:.1f}H386" stroke="#b3261e" stroke-dasharray="5 4" fill="none"/><text x="386" '
            f'y="{at - 4 if at > 30 else at + 13:.1f}" text-anchor="end" font-size="11" fill="#b3261e">'
            f"{html.escape(name)}: {value:.3g}</text>"
        )
    return (
        '<svg viewBox="0 0 400 165" role="img" width="100%"><path d="M46 12V142H386" stroke="#c5ccd6" fill="none"/>'
        f'{compared}<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="2"/>'
        f'<text x="42" y="16" text-anchor="end" {label}>{high:.3g}</text>'
        f'<text x="42" y="144" text-anchor="end" {label}>{low:.3g}</text>'
        f'<text x="46" y="158" {label}>step {x[0]:.0f}</text>'
        f'<text x="386" y="158" text-anchor="end" {label}>{x[-1]:.0f}</text></svg>'
    )
