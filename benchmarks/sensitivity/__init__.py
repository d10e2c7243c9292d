"""Bars of sensitivity and search, on real models and their referee."""
