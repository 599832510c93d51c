"""Reads the text console of a guest from the pixels of noVNC's canvas.

The shapes of the characters are learned from the guest itself: it prints all of them on the display, at known places.
"""

import base64
import string

from wolkecloud import wait

CHARACTERS = string.digits + string.ascii_letters + string.punctuation

# Each cell as one text: a bit for each pixel, set where it is bright. One call for the whole screen, because a call costs more than
# the pixels.
CELLS = """
([columns, rows]) => {
    const canvas = document.querySelector("#screen canvas");
    const width = Math.floor(canvas.width / columns), height = Math.floor(canvas.height / rows);
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const cells = [];
    for (let row = 0; row < rows; row += 1) {
        for (let column = 0; column < columns; column += 1) {
            let bits = "";
            for (let y = row * height; y < (row + 1) * height; y += 1) {
                for (let x = column * width; x < (column + 1) * width; x += 1) {
                    const at = 4 * (y * canvas.width + x);
                    bits += Math.max(pixels[at], pixels[at + 1], pixels[at + 2]) > 96 ? "1" : "0";
                }
            }
            cells.push(bits);
        }
    }
    return cells;
}
"""


class Screen:
    """The text on a guest's display.

    - page: a page of noVNC that is connected.
    - ssh: runs a command in the guest.
    """

    def __init__(self, page, ssh):
        self.page = page
        self.ssh = ssh
        self.rows, self.columns = map(int, ssh("stty size -F /dev/tty1 2>/dev/null || stty size </dev/tty1").split())
        self.shapes = {}

    def _cells(self):
        return self.page.evaluate(CELLS, [self.columns, self.rows])

    def learn(self):
        """Has the guest print every character and keeps their shapes."""
        # One cell apart, without a cursor, and from the second line on, so that output of the shell comes later.
        text = " ".join(CHARACTERS)
        lines = [text[start : start + self.columns] for start in range(0, len(text), self.columns)]
        written = "\033[2J\033[?25l\033[1;1H" + "".join(f"\033[{number + 2};1H{line}" for number, line in enumerate(lines))
        encoded = base64.b64encode(written.encode()).decode()
        self.ssh(f"echo {encoded} | base64 -d >/dev/tty1")

        def shapes():
            cells = self._cells()
            found = {}
            for number, line in enumerate(lines):
                for column, character in enumerate(line):
                    found.setdefault(cells[(number + 1) * self.columns + column], character)
            # Complete only when all are different: until then, the display shows something else.
            return found if sorted(found.values()) == sorted(CHARACTERS + " ") else None

        self.shapes = wait("the display shows all characters", shapes, 60)
        self.ssh("printf '\\033[2J\\033[1;1H' >/dev/tty1")
        wait("the display is empty", lambda: not self.text().strip(), 60)

    def text(self):
        """The lines of the screen; characters that are not known are �."""
        shown = "".join(self.shapes.get(cell, "\ufffd") for cell in self._cells())
        return "\n".join(shown[start : start + self.columns].rstrip() for start in range(0, len(shown), self.columns)).rstrip()
