"""Training: one step, the loop around it, the teachers' logits, and the order that ties them together."""
