"""`python -m splitcodec`."""

from splitcodec.cli import main

main()
