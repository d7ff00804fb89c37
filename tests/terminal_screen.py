"""A small emulation of a terminal: what a screen of a given height shows in the end."""

from __future__ import annotations

import re

CODES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r\n|\r|\n|[^\x1b\r\n]")


class Screen:
    """A terminal: the lines that scrolled away and those on screen; a cursor that moves up only on screen."""

    def __init__(self, height: int) -> None:
        self.lines = [""]
        self.row = self.column = 0
        self.height = height

    def write(self, text: str) -> None:
        for found in CODES.finditer(text):
            command, count = found[2], int(found[1] or 1) if found[1] and found[1].isdigit() else 1
            if found[0] in "\r\n":
                self.column = 0
                if "\n" in found[0]:
                    self.row += 1
                    if self.row == len(self.lines):
                        self.lines.append("")
            elif command == "A":
                self.row = max(self.row - count, len(self.lines) - self.height, 0)
            elif command == "K":
                self.lines[self.row] = ""
            elif command is None:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + found[0] + line[self.column + 1 :]
                self.column += 1

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).strip()
