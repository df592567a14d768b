"""Wire formats of other APIs over the one internal request: a package for each."""
