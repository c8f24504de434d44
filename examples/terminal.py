"""What the examples print with: aligned tables, sections, and a progress bar; no dependencies."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO


def section(title: str) -> None:
    """Print a heading."""
    print(f"\n{title}\n{'─' * len(title)}")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need; numbers go to the right, text to the left.

    A heading that begins with ``>`` sends a column of text to the right.
    """
    rows = [list(row) for row in rows]
    cells = [[_text(value) for value in row] for row in rows]
    right = [
        heading.startswith(">")
        or (bool(rows) and all(isinstance(row[column], (int, float)) for row in rows))
        for column, heading in enumerate(headings)
    ]
    titles = [heading.lstrip(">") for heading in headings]
    widths = [
        max([len(titles[column]), *(len(line[column]) for line in cells)])
        for column in range(len(titles))
    ]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(values, widths, right, strict=True)
        )
        return ("  " + "  ".join(padded)).rstrip()

    print(line(titles))
    print("  " + "  ".join("─" * width for width in widths))
    for values in cells:
        print(line(values))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return str(value)


class Progress:
    """A progress bar on a terminal; a line every few seconds where there is none.

    Args:
        title: what is being done.
        total: how many steps there will be; 0 shows nothing.
        out: where to write, standard error by default.
    """

    WIDTH = 32
    TERMINAL_SECONDS = 0.1  # between two drawings
    LINE_SECONDS = 5.0

    def __init__(self, title: str, total: int, out: TextIO | None = None) -> None:
        self.title = title
        self.total = total
        self.out = out if out is not None else sys.stderr
        self.is_terminal = self.out.isatty()
        self.started = time.perf_counter()
        self.next_drawing = self.started + (0 if self.is_terminal else self.LINE_SECONDS)
        self.drawn = False

    def at(self, done: int) -> None:
        """Say that so many steps are done; draws only when it is time to."""
        now = time.perf_counter()
        if now >= self.next_drawing:
            self.next_drawing = now + (
                self.TERMINAL_SECONDS if self.is_terminal else self.LINE_SECONDS
            )
            self._draw(done, now)

    def finish(self) -> float:
        """Draw the full bar and return the seconds it took."""
        now = time.perf_counter()
        if self.is_terminal or self.drawn:
            self._draw(self.total, now)
        if self.is_terminal:
            self.out.write("\n")
        return now - self.started

    def over(self, items: Sequence[object], every: int = 64) -> Iterator[object]:
        """Iterate over items, counting them as steps."""
        for number, item in enumerate(items):
            if number % every == 0:
                self.at(number)
            yield item

    def _draw(self, done: int, now: float) -> None:
        if self.total <= 0:
            return
        self.drawn = True
        part = min(1.0, done / self.total)
        filled = round(part * self.WIDTH)
        rate = done / max(now - self.started, 1e-9)
        text = (
            f"  {self.title} {'█' * filled}{'·' * (self.WIDTH - filled)} "
            f"{part:4.0%}  {done:,} of {self.total:,}  {rate:,.0f}/s"
        )
        self.out.write(f"\r{text}\x1b[K" if self.is_terminal else text + "\n")
        self.out.flush()
