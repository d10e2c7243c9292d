"""The HTTP service: takes requests, answers from what is stored, loads no torch.

It puts jobs on the queue by name; the worker that takes them off is another process.
"""
