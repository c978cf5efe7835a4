"""From YAML to a frozen Config, with every complaint at once."""
