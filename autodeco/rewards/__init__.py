"""Training on rewards: policies that answer, measurements of heads by their answers, and a verdict.

``llama`` alone runs a model with our C++; nothing else here, and nothing that trains, imports that.
"""
