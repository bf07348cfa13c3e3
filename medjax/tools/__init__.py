"""What the commands do, as functions of paths and arrays."""
