"""The batch size that fits: what limits it, and how it is found by trying."""
