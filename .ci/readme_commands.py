"""Print the README's two set-up commands, one a line: its one-line code blocks of `pip install`."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def readme_commands() -> list[str]:
    """One-line code blocks that start with `pip install -e`, in order."""
    text = README.read_text(encoding="utf-8")
    return re.findall(r"^```\w*\n(pip install -e .*)\n```$", text, flags=re.MULTILINE)


if __name__ == "__main__":
    commands = readme_commands()
    if len(commands) != 2:
        sys.exit(f"README.md: expected two one-line `pip install -e` blocks, found {commands}")
    print("\n".join(commands))
