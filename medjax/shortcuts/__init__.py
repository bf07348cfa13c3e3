"""Shortcuts that networks take: label flips, and training that resists them."""
