"""Torch-free configurations of everything the vision pack declares."""
