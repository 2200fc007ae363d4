"""The commands esgf-gossip and trust-admin; thin."""
