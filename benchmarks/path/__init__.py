"""Figures of the whole path: from a trained model to a plan measured on this machine."""
