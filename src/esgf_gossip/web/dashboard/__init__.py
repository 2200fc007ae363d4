"""The dashboard: pages for people, made of the same view as everything else."""
