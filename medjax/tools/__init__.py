"""The commands as functions of paths and arrays."""
