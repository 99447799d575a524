"""Small stand-ins of AlgoPerf's nine workloads for one CPU core, its way to set targets, and its score."""
