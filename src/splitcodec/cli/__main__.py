"""`python -m splitcodec.cli`."""

from splitcodec.cli import main

main()
