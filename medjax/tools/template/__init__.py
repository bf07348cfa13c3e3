"""The two files that `medjax new NAME` writes where NAME is no experiment of the papers."""
