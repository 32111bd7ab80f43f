"""Methods of the pack: adapters, and the rows to compare with."""
