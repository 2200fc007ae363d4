"""From a dataset event to whoever downloaded it, once."""
