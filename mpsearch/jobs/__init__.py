"""What the service remembers: jobs, their progress, uploads and results, in one data folder.

The API and the worker share this part and nothing else; neither imports the other.
"""
