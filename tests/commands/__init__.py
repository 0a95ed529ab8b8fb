"""The commands but for the main one, and what they are made for."""
