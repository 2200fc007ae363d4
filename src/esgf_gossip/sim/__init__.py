"""The simulator: federations of the real core in virtual time, with faults. Never imported by the daemon."""
