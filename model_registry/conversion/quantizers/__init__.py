"""How weights are rounded: one file an algorithm, the recipe that chooses among them, and mixtures of finished builds."""
