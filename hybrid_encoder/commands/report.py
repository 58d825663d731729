"""A report in one self-contained HTML file: text, tables, curves as inline SVG, pictures as inline JPEG."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..writing import atomic_path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2530; background: #f7f8fa; margin: 0; }
main { max-width: 1060px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
p.lead { color: #55606e; margin-top: 0; }
table { border-collapse: collapse; background: #fff; margin: .6rem 0; }
th, td { padding: .4rem .9rem; border-bottom: 1px solid #e3e7ec; text-align: right; font-variant-numeric:
tabular-nums; }
th:first-child, td:first-child { text-align: left; } th { color: #55606e; font-weight: 600; }
figure { margin: .8rem 0; } figcaption { color: #55606e; font-size: .9rem; }
img { width: 100%; border-radius: 6px; display: block; } .curves { display: flex; flex-wrap: wrap; gap: 1rem; }
.curves figure { flex: 1 1 320px; background: #fff; padding: .8rem; border-radius: 6px; margin: 0; }
pre { background: #1c2530; color: #e8edf3; padding: .9rem 1.1rem; border-radius: 6px; overflow-x: auto; }
"""


class Report:
    """Collects the parts of a report in reading order."""

    def __init__(self, title: str, lead: str) -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>']

    def heading(self, text: str) -> None:
        """Starts a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Commands to copy."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Floats are shown with four digits; the first column is the row's name."""
        cells = [f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in header)}</tr>"]
        for row in rows:
            shown = (f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row)
            cells.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in shown)}</tr>")
        self._parts.append(f"<table>{''.join(cells)}</table>")

    def curves(self, curves: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> None:
        """Side by side: (title, steps, values) each."""
        drawn = (
            f"<figure>{_curve(x, y)}<figcaption>{html.escape(name)}</figcaption></figure>" for name, x, y in curves
        )
        self._parts.append(f'<div class="curves">{"".join(drawn)}</div>')

    def picture(self, image: np.ndarray, caption: str) -> None:
        """uint8 RGB (H, W, 3)."""
        encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
        if not encoded:
            raise UserError(f"a picture of shape {image.shape} could not be encoded")
        source = base64.b64encode(data.tobytes()).decode()
        self._parts.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{source}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, path: Path) -> None:
        """Writes the page, whole or not at all."""
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
            f"<body><main>{''.join(self._parts)}</main></body></html>\n"
        )
        with atomic_path(path) as partial:
            partial.write_text(page, encoding="utf-8")


def _curve(steps: Sequence[float], values: Sequence[float]) -> str:
    """A line with its range written at the axes, as SVG."""
    if len(values) < 2:
        return "<p>too few points for a curve</p>"
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    low, high = float(y.min()), float(y.max())
    across = 46 + 340 * (x - x[0]) / max(x[-1] - x[0], 1e-9)
    down = 12 + 130 * (high - y) / max(high - low, 1e-9)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
    label = 'font-size="11" fill="#55606e"'
    return (
        '<svg viewBox="0 0 400 165" role="img" width="100%"><path d="M46 12V142H386" stroke="#c5ccd6" fill="none"/>'
        f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="2"/>'
        f'<text x="42" y="16" text-anchor="end" {label}>{high:.3g}</text>'
        f'<text x="42" y="144" text-anchor="end" {label}>{low:.3g}</text>'
        f'<text x="46" y="158" {label}>step {x[0]:.0f}</text>'
        f'<text x="386" y="158" text-anchor="end" {label}>{x[-1]:.0f}</text></svg>'
    )
