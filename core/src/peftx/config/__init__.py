"""Configuration: a run as validated data, read from flags and TOML alike. Nothing here imports torch.

Import the submodule you need: this file stays empty so that reading a flag does not cost an import of
pydantic.
"""
