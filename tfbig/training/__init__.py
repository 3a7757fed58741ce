"""Training: Keras's own loop, with the choices made."""
