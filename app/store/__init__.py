"""Adapter versions, durable: an append-only log and contents by digest, in a directory or behind a URL."""
