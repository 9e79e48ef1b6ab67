"""Training on rewards: policies that answer, what their answers say of the heads, and a verdict.

``llama`` alone runs a model with our C++; nothing else here, and nothing that trains, imports that.
"""
