"""Loaders of the vision data sets; one file each, and none of them imports torch."""
