"""``python -m fastsdm.cli``: the command without its script on the path."""

from fastsdm.cli import main

main()
