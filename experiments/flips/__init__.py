"""The label-flips study: `members` are its networks, their data and their training; `figures` are its pictures."""
