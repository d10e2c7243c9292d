"""What a plan promised beside what was measured of it."""
