"""Zero-shot evaluation over many domains."""
