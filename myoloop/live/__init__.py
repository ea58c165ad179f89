"""Real-time halves of the loop as objects with start and stop: what nodes and the command line run.

Import `LiveParticipant` from `myoloop.live.participant` and `LiveDecoder` from `myoloop.live.decoder`: the decoder's
process must not pay for the participant's libraries.
"""
