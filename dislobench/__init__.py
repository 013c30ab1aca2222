"""Benchmark of interatomic potentials on dislocations; `python -m dislobench` is the command line.

The library itself is `suite` (the method: see `suite.pipeline`) and `store` (what a workspace keeps).
"""
