"""What things are: frozen nouns and their own arithmetic. Imports nothing else of ours."""
