"""Data: official files -> .beton files -> batches on the device, in an order that a seed fixes."""
