"""How fast a version or a server answers: loads, the wire, a closed loop in this process, and the kind `benchmark`.

From outside, `load` is used by `slmops bench`, and `closed_loop` by kinds that measure speed.
"""
