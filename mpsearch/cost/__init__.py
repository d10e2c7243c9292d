"""What a plan costs: bytes and operations counted, latency measured and predicted."""
