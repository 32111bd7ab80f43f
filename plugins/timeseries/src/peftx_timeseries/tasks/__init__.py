"""What can be trained and scored: forecasting."""
