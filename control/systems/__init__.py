"""Systems under test: how to install, start, stop and observe them."""
