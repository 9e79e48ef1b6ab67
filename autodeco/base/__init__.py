"""The frozen GGUF model through stock llama.cpp: opening, tokens, output matrix. No torch, none of our C++."""
