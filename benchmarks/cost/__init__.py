"""The bars of cost: predicted against measured latency, and what a profile takes."""
