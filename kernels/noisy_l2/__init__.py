"""The noisy-teacher L2 loss: mask, noise, scaling, loss and gradient as one op."""
