"""From a FederationView to bytes: pure and deterministic."""
