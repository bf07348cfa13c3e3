"""``python -m medjax`` is the ``medjax`` command."""

from medjax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
