"""Draw a terminal's screen, read as ANSI text from standard input, as docs/demo.svg for the README.

tmux new-session -d -s demo -x 92 -y 12 'relume train fashion-mnist --name demo'
sleep 9; tmux capture-pane -t demo -e -p | python scripts/picture.py
"""

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

screen = sys.stdin.read().rstrip("\n")
console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
console.print(Text.from_ansi(screen))
console.save_svg(str(Path(__file__).parent.parent / "docs" / "demo.svg"), title="relume train fashion-mnist")
