"""Adapter methods that come from computer vision; they run on every task."""
