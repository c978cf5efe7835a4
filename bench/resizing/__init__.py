"""The parts of bench/resize.py: the pictures, those who are measured, the meter, and what is written of it."""
