"""How fast a version or a server answers: loads, the wire, a closed loop in this process, and the kind `benchmark`."""
