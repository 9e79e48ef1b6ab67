"""Training on rewards: what known answers are worth under the top-p that decoding cuts with, and what draws them.

``llama`` alone runs a model with our C++; nothing else here, and nothing that trains, imports that.
"""
