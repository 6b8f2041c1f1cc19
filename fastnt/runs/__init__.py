"""A run of three networks and its folder: what is written when, and how it is resumed."""
