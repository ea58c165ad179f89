"""What this machine can carry: its timing measured as BCI2000's certification does, and said in plain words.

Wilson, Mellinger, Schalk & Williams 2010 (IEEE Trans Biomed Eng 57:1785) let users measure their own machine with a
procedure that ships with the software, instead of trusting the authors'. So do we: `myoloop certify`.
"""
