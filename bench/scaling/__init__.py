"""The parts of bench/scale.py: who is measured, and what is made of the figures."""
