"""Pictures: decoded upright and in sRGB, resampled, and encoded."""
