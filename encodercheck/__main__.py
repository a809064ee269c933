"""``python -m encodercheck``."""

from encodercheck.cli.entry import main

main()
