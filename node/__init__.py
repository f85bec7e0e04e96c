"""The Raft key-value store: pure core, durable log, HTTP API and the deliberately faulty variants."""
