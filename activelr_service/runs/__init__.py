"""A run on disk: its folder, its journal, its figures, and the right to write to it."""
