"""Clusters for tests that are written by hand; `labrys.control.pytest_plugin` has the fixtures."""
