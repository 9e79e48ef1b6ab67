"""Long runs that can be interrupted, continued and retraced: whole files, logs, locks, interrupts, seeds, provenance,
trackers."""
