"""Generators, clients and the workloads: what clients do and what they expect."""
