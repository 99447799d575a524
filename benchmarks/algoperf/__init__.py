"""A submission to AlgoPerf's self-tuning ruleset."""
