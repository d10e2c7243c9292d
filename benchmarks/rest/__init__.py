"""Bars of the HTTP service."""
