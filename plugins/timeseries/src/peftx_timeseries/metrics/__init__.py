"""Metrics of forecasts, as their field defines them."""
