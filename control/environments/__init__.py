"""Places to run nodes in: containers, network namespaces."""
