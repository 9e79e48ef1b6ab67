"""How tokens and curves are shown."""
