"""A page of tables, pictures and text that stands alone: one HTML file, pictures inside."""

import base64
import html
import io
import os
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tfbig.files import written_whole


class Page:
    """Collects sections and writes them as one HTML file that needs no other file and no network.

    Example:
        >>> page = Page("Digits", lead="Trained and pruned.")
        >>> page.table("Files", ["stage", "bytes"], [["int8", "61,000"]])
        >>> "<td>int8</td>" in page.render()
        True
    """

    def __init__(self, title: str, *, lead: str = "", footer: str = ""):
        self._words = {"title": title, "lead": lead, "footer": footer}
        self._sections: list[str] = []

    def table(self, heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table; the first column is to the left, figures to the right."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
        )
        self._add(heading, f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>")

    def picture(self, heading: str, figure: Any, *, alt: str) -> None:
        """Adds a matplotlib figure.

        Args:
            heading: Above it.
            figure: A `matplotlib.figure.Figure`.
            alt: What it shows, for those who cannot see it.
        """
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        width = round(figure.get_figwidth() * 96)
        source = f"data:image/png;base64,{encoded}"
        self._add(heading, f'<img width="{width}" alt="{html.escape(alt)}" src="{source}">')

    def text(self, heading: str, text: str) -> None:
        """Adds text as it stands, in a fixed width."""
        self._add(heading, f"<pre>{html.escape(text)}</pre>")

    def render(self) -> str:
        """Returns the page as HTML."""
        template = resources.files("tfbig.reporting").joinpath("page.html").read_text(encoding="utf-8")
        words = {name: html.escape(word) for name, word in self._words.items()}
        return string.Template(template).substitute(words, body="\n".join(self._sections))

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page, whole or not at all; returns its path."""
        target = Path(path)
        with written_whole(target) as staged:
            staged.write_text(self.render(), encoding="utf-8")
        return target

    def _add(self, heading: str, content: str) -> None:
        self._sections.append(f"<h2>{html.escape(heading)}</h2>\n{content}")
