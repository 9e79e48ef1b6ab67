"""What lets a long run be interrupted, continued and retraced: whole files, logs, locks, interrupts, seeds,
provenance, trackers."""
