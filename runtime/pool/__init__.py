"""Models in memory: which are loaded, which may stay, which wait, and on how many cores each computes."""
