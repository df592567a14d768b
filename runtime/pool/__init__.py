"""Models in memory: who is loaded, who may stay, who waits, and on how many cores each computes."""
