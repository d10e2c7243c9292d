"""Bars of the service: durable, closed to strangers, fast under load."""
