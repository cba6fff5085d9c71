"""What runs inference: the built-in llama.cpp, Ollama, and anything OpenAI-compatible."""
