"""The methods that belong to no domain; one file each. They are everybody's baselines."""
