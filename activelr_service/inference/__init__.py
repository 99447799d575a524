"""Answers to raw input: a trained model together with how its input is read and what its outputs mean."""
