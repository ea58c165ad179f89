"""From observation to muscle excitation."""
