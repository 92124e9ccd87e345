"""Base models: trained from scratch, out of a wheel, from the hub; checkpoints."""
