"""A throw-away federation of real processes on one machine."""
