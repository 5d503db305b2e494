"""The parts of trapline. Start at main.py; each module's docstring says what it knows."""
