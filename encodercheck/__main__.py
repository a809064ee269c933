"""``python -m encodercheck``."""

from encodercheck.cli.main import main

main()
