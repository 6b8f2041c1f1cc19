"""Data: official files -> .beton files -> batches on the device, in an order that depends on the seed alone."""
