"""What lets a long run be interrupted, continued and retraced: whole files, Ctrl-C, provenance, trackers."""
