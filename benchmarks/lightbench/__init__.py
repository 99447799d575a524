"""Problems of LightBench on a CPU: one run of each optimizer against searches of ten."""
