"""The task queue: what programs of the site ask of the daemon, through a folder."""
