"""Series in memory: values, times, frequency, scaling and windows. Torch-free."""
