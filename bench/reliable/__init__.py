"""The four tests of ``reliability.py``, one module each; all of the peers' API that they use is in these files."""
