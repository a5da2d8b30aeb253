"""A whole study in one call, each step of which is a public call that its log names."""
