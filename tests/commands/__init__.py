"""The commands as they are called: what they do, print, log and refuse."""
