"""What a user sees of a training while it runs: progress, the time left, where a step's time goes."""
