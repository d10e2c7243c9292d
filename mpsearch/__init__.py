"""Find the best number format for each layer of a model, under budgets, with a proof."""
