"""Transactions over several keys, judged by the dependencies between them."""
