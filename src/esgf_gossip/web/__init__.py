"""HTTP resources and the control socket."""
