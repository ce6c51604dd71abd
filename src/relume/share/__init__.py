"""Sharing: one file that another researcher can open, check and reproduce.

Names are imported when they are first used.
"""
