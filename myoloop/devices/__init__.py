"""Emulated amplifiers, and adapters for what software answers: sockets for programs that do not speak LSL."""
