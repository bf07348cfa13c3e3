"""Networks: Flax modules whose only variables are `params`; library code takes their `apply` as a function."""
