"""How good a router's decisions are: labelled or recorded conversations in, measures and findings out.

A router is whatever implements `core.ports.Router`; nothing here knows which one it is.
"""
