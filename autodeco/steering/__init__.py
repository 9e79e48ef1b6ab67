"""Heads learn to follow commands in words, from answers that the model draws behind them."""
