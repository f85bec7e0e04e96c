"""The Raft key-value store under test: a pure core (`raft`) in a thin asyncio shell (`server`).

Only the standard library, msgspec and httptools may be imported here: the folder is uploaded to
the machines as it is, and every kill pays for the imports again.
"""
