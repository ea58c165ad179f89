"""Learning: supervised decoder training."""
