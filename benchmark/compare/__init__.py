"""Two models, or a model and what a paper says of it: differences with their intervals."""
