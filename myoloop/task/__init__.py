"""What the participant is asked to do."""
