"""The frozen GGUF model through llama.cpp: opening, tokens, states, output matrix. No torch; C++ for states only."""
