"""``autodeco serve``: an OpenAI-compatible API around ``autodeco.Llama``, and the page that shows what was picked."""
