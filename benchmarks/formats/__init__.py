"""What number formats do to real models."""
