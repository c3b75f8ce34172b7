"""One result: read, written, found stale, listed in tables."""
