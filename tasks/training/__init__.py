"""Heads trained by gradient steps on a frozen encoder: data with augmentation, the loop, losses, scoring.

A run is resumable to the step. Nothing random has a state: the pictures of step s, how each is changed, and the first
weights are functions of (seed, s), so a run that was killed goes on as if nothing had happened.
"""
