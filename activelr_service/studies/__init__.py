"""Robustness studies: Ray Tune runs many trainings that differ in one setting, and one table holds their results."""
