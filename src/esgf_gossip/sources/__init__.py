"""Where a node learns what it says: files, probes, databases."""
