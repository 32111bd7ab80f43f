"""Options of the pack's data sets, task, models and methods. Torch-free."""
