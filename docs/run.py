"""Run the Python blocks of a page, in order, as one script.

python -m docs.run docs/guide.md --pictures docs/img
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from pathlib import Path

# A block that cannot run here (it needs a GPU, say) is preceded by this line, which says why.
BLOCK = re.compile(r"(?P<skip><!-- no-test[^>]*-->\n)?^```python\n(?P<code>.*?)^```", re.M | re.S)


def run_blocks(page: Path) -> dict[str, object]:
    """Run a page's blocks in the current folder.

    Returns:
        The names they left behind.
    """
    text = page.read_text()
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        if not block["skip"]:
            line = text[: block.start("code")].count("\n")
            exec(compile("\n" * line + block["code"], str(page), "exec"), namespace)
    return namespace


def main() -> None:
    """Run a page in a folder of its own and keep the pictures that it draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="where the .png files go")
    arguments = parser.parse_args()
    page, pictures = arguments.page.resolve(), arguments.pictures.resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MPLBACKEND", "Agg")
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        run_blocks(page)
        for picture in sorted(Path().glob("*.png")):
            shutil.copy(picture, pictures)
        os.chdir(before)


if __name__ == "__main__":
    main()
