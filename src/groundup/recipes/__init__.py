"""Whole jobs, put together from the parts below: what the verbs of the command line do."""
