"""Runs the demo in a pseudo-terminal and draws two moments of it as SVG. See .ci/picture."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
from xml.sax.saxutils import escape

import pyte

COLUMNS, ROWS = 100, 60
# Units of the picture: a cell of the terminal, and the space around.
WIDTH, HEIGHT, MARGIN = 8.4, 19, 16
COMMAND = ["embedding-recovery", "demo"]
# The moment that is kept on the way: the worker was killed, and others go on.
MOMENT = "killed at"

BACKGROUND, FOREGROUND, BAR = "#16181d", "#d8dee4", "#20242b"
COLOURS = {
    "default": FOREGROUND,
    "black": "#444c56",
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",
    "blue": "#79b8ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": FOREGROUND,
}


class Screen(pyte.Screen):
    """pyte knows no faint text: it is drawn as grey, which no other text here is."""

    def select_graphic_rendition(self, *attributes, **rest):
        super().select_graphic_rendition(*attributes, **rest)
        if 2 in attributes:
            self.cursor.attrs = self.cursor.attrs._replace(fg="8b949e")


def run(data_dir):
    """The screen at the moment and at the end, each as rows of (character, colour, bold)."""
    screen = Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
        for name in [name for name in os.environ if name.startswith("OPENAI_")]:
            del os.environ[name]
        for name in ["DATABASE_URL", "EMBEDDING_MODEL", "EMBEDDING_DIMENSIONS", "NO_COLOR"]:
            os.environ.pop(name, None)
        # The parent sets the size of the terminal first.
        sys.stdin.readline()
        os.execvp(COMMAND[0], [*COMMAND, "--data-dir", data_dir])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    attributes = termios.tcgetattr(terminal)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    os.write(terminal, b"\n")
    moment = None
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        if not ready:
            sys.exit("the demo says nothing for a minute")
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        stream.feed(data)
        if MOMENT in "\n".join(screen.display):
            moment = moment or rows_of(screen)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0 or moment is None:
        sys.exit("\n".join(screen.display) + "\nthe demo failed")
    return moment, rows_of(screen)


def rows_of(screen):
    rows = []
    for line in range(ROWS):
        cells = [screen.buffer[line][column] for column in range(COLUMNS)]
        rows.append([(cell.data or " ", colour(cell.fg), cell.bold) for cell in cells])
    while rows and all(character == " " for character, _, _ in rows[-1]):
        rows.pop()
    return rows


def colour(name):
    return COLOURS.get(name) or f"#{name}"


def runs(row):
    """A row's stretches of one colour: column, text, colour, bold. Spaces alone are left out."""
    column = 0
    while column < len(row):
        end = column
        while end < len(row) and row[end][1:] == row[column][1:]:
            end += 1
        text = "".join(character for character, _, _ in row[column:end])
        start = column + len(text) - len(text.lstrip())
        text = text.strip()
        if text:
            yield start, text, row[column][1], row[column][2]
        column = end


def draw(frames):
    width = COLUMNS * WIDTH + 2 * MARGIN
    parts, top = [], 0
    for title, rows in frames:
        height = len(rows) * HEIGHT + 2 * MARGIN + 28
        parts.append(f'<rect y="{top}" width="{width:g}" height="{height}" rx="8" fill="{BACKGROUND}"/>')
        parts.append(f'<path d="M0 {top + 8}a8 8 0 0 1 8-8h{width - 16:g}a8 8 0 0 1 8 8v20H0z" fill="{BAR}"/>')
        parts.append(
            f'<text x="{width / 2:g}" y="{top + 19}" text-anchor="middle" fill="#8b949e">{escape(title)}</text>'
        )
        for index, row in enumerate(rows):
            y = top + 28 + MARGIN + (index + 0.75) * HEIGHT
            for column, text, fill, bold in runs(row):
                weight = ' font-weight="bold"' if bold else ""
                parts.append(
                    f'<text x="{MARGIN + column * WIDTH:.1f}" y="{y:g}" fill="{fill}"{weight}'
                    f' textLength="{len(text) * WIDTH:.1f}" xml:space="preserve">{escape(text)}</text>'
                )
        top += height + 14
    font = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top - 14}"'
        f' width="{width:g}" height="{top - 14}" font-family="{font}" font-size="14">'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def main():
    data_dir, target = sys.argv[1:]
    moment, end = run(data_dir)
    command = " ".join(COMMAND)
    with open(target, "w", encoding="utf-8") as file:
        file.write(draw([(f"{command}: on the way", moment), (f"{command}: the end", end)]))


main()
