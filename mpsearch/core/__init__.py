"""Plain frozen data that flows between the parts; NumPy only, no algorithm."""
