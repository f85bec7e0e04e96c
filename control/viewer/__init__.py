"""The viewer: the runs directory in a browser."""
