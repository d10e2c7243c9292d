"""Bars of reading models: operators, exported models, models from packages, bad files."""
