"""Training: one step, the loop around it, the teacher's logits, and the run that ties them together."""
