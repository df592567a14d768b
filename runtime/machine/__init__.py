"""What this machine has: processors, memory, execution providers, and the software that drives them."""
