"""Lab Streaming Layer: outlets, inlets, clock, metadata."""
