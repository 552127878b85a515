"""``python -m groundup``: the command line."""

from groundup.cli import main

main()
