"""The benchmark suites of the pack. Torch-free."""
