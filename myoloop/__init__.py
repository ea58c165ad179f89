"""myoloop: a virtual participant for EMG interfaces."""

__version__ = "0.1.0"
