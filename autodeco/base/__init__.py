"""The frozen GGUF model through stock llama.cpp: opening, tokens, states, output matrix. No torch, none of our C++."""
