"""Loaders: wide tables, long frames, Monash files and the official sets. Torch-free."""
