"""The tools on a user's own data, one module a command group; `medjax.cli` loads a group when it is used."""
