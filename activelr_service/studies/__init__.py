"""Robustness studies: many trainings that differ in one thing at a time, run by Ray Tune, in one table."""
