"""The commands but for the main one; each brings its own flags."""
