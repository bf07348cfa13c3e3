"""`python -m medjax.cli`: the same as `medjax`."""

from medjax.cli import main

main()
