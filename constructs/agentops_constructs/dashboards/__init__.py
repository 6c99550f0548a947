"""What is on each of the three dashboards."""
