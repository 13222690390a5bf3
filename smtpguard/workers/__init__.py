"""Several processes as one guard: a supervisor that has the listening sockets, and workers that serve them."""
