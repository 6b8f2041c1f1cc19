"""Several processes that train together: how they meet, and what they share."""
