"""Forecasters: a frozen language model between two projections, and the hosts it may be."""
