"""Data: sources, the .beton file, the order of an epoch, loaders and preprocessing."""
